import sys

import etcd3
from _timing import blocking

host, _, port = sys.argv[1].rpartition(":")
client = etcd3.client(host=host, port=int(port), timeout=5)
blocking(lambda: client.put("/bench-peers/store/key", "5"), lambda: client.get("/bench-peers/store/key"))
