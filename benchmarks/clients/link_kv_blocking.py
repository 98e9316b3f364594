import sys

from _timing import blocking

from link_kv import EtcdMiddleware

client = EtcdMiddleware(endpoints=[sys.argv[1]], prefix="/bench-peers")
blocking(lambda: client.put("/store/key", 5), lambda: client["/store/key"])
