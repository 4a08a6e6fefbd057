"""Downloads a torrent from one peer with libtorrent: leecher.py TORRENT DIRECTORY IP:PORT"""
import os
import sys
import time

import libtorrent

torrent, directory, peer = sys.argv[1:4]
session = libtorrent.session({
    "listen_interfaces": "127.0.0.1:0", "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
    "enable_natpmp": False, "enable_outgoing_utp": False, "alert_mask": 0,
})
parameters = libtorrent.add_torrent_params()
parameters.ti = libtorrent.torrent_info(torrent)
parameters.save_path = directory
parameters.trackers = []
handle = session.add_torrent(parameters)
address, port = peer.rsplit(":", 1)
handle.connect_peer((address, int(port)))
deadline = time.monotonic() + 25
while not handle.status().is_seeding:
    if time.monotonic() > deadline:
        sys.exit(f"{handle.status().progress:.0%} after 25 s")
    time.sleep(0.05)
# The end of a session waits for what need not be waited for.
sys.stdout.flush()
os._exit(0)
