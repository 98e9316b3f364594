"""The private rooms. Imports point one way: from what serves programs to what talks to etcd.

wire            talking to etcd: options, channels, calls, failures, requests
operations      what the mapping does, each operation once, for blocking and asyncio alike
leasing         leases, locks, and being registered
watching        from the stream of watches to callbacks, iterators and mirrors
items           stores and items
configuration   configurations that follow etcd
links           services and links
endpoints       endpoints from a configuration file
clients         clients of one's own
cluster         health, users and roles, administration
revived         etcd3's messages on today's protobuf
files           files that are replaced as a whole
"""
