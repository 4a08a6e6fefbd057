"""A libtorrent client of one torrent: seeds it, or downloads it from the peers that come or that it is told of.

    torrent_client.py TORRENT DIRECTORY seed|leech [PORT OF A PEER]

Prints its port once it is ready, and "done" once it has everything. Ends with its standard input.
"""

import sys
import time

import libtorrent

torrent, directory, role, peers = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
session = libtorrent.session({
    "listen_interfaces": "127.0.0.1:0",
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "enable_outgoing_utp": False, "enable_incoming_utp": False,
    "out_enc_policy": 2, "in_enc_policy": 2, "allowed_enc_level": 1,
    "disable_hash_checks": False, "alert_mask": 0, "allow_multiple_connections_per_ip": True,
})
parameters = libtorrent.add_torrent_params()
parameters.ti = libtorrent.torrent_info(torrent)
parameters.save_path = directory
if role == "seed":
    parameters.flags = libtorrent.torrent_flags.seed_mode
else:
    parameters.flags &= ~libtorrent.torrent_flags.paused
handle = session.add_torrent(parameters)
deadline = time.monotonic() + 60
while not session.is_listening() and time.monotonic() < deadline:
    time.sleep(0.01)
print(session.listen_port(), flush=True)
for peer in peers:
    handle.connect_peer(("127.0.0.1", int(peer)))
while time.monotonic() < deadline and not handle.status().is_seeding:
    time.sleep(0.01)
if handle.status().is_seeding:
    print("done", flush=True)
sys.stdin.read()
