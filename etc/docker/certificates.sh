#!/bin/sh
# Makes the certificates of the cluster in compose.yaml, in certificates/ beside this file: an authority (ca),
# one certificate for all members (member), which they show to clients and to each other, and one for clients
# (client). They last ten years. Needs openssl 1.1.1 or newer. Keep ca.key and client.key to yourself.
set -eu
cd "$(dirname "$0")"

if [ -e certificates ]; then
    echo "certificates/ is there already: remove it first if you want new ones" >&2
    exit 1
fi
umask 077
mkdir certificates
cd certificates

new_key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"
}

sign() { # NAME EXTENSIONS
    new_key "$1"
    openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
    printf '%s\n' "$2" > extensions
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 \
        -extfile extensions -out "$1.pem"
    rm "$1.csr" extensions
}

new_key ca
openssl req -x509 -key ca.key -days 3650 -subj "/CN=link_kv development authority" -out ca.pem
# A member is a client too: of its peers, and of itself.
sign member "extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:etcd1, DNS:etcd2, DNS:etcd3, DNS:localhost, IP:127.0.0.1"
sign client "extendedKeyUsage = clientAuth"

echo "Made $(pwd): ca.pem, member.pem, client.pem and their keys."
