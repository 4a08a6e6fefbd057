"""Many libtorrent seeders in one process: seeds.py CHOKING TORRENT DIRECTORY ADDRESS[=DIRECTORY]...

Each seeds at an address of its own, and the last CHOKING of them unchoke nobody. ADDRESS=DIRECTORY seeds what lies
there in its place, right or wrong. Prints a line of JSON, {"ports": [N, ...]}, when all seed; the end of its input ends
it.
"""
import json
import os
import sys
import time

import libtorrent

choking, torrent, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3]
addresses = sys.argv[4:]
classes = libtorrent.ip_filter()
classes.add_rule("0.0.0.0", "255.255.255.255", 1 << 0)
sessions, handles = [], []
for number, address in enumerate(addresses):
    address, _, other = address.partition("=")
    session = libtorrent.session({
        "listen_interfaces": address + ":0", "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
        "enable_natpmp": False, "enable_outgoing_utp": False, "enable_incoming_utp": False,
        "enable_outgoing_tcp": False, "disable_hash_checks": True, "alert_mask": 0,
        "allow_multiple_connections_per_ip": True, "inactivity_timeout": 600, "active_seeds": -1, "active_limit": -1,
        "unchoke_slots_limit": 0 if number >= len(addresses) - choking else 64, "allowed_fast_set_size": 0,
        "aio_threads": 1, "hashing_threads": 1,
    })
    session.set_peer_class_filter(classes)
    parameters = libtorrent.add_torrent_params()
    parameters.ti = libtorrent.torrent_info(torrent)
    parameters.save_path = other or directory
    parameters.trackers = []
    parameters.flags = libtorrent.torrent_flags.seed_mode
    handles.append(session.add_torrent(parameters))
    sessions.append(session)
deadline = time.monotonic() + 60
while not all(session.is_listening() for session in sessions) or not all(it.status().is_seeding for it in handles):
    if time.monotonic() > deadline:
        sys.exit("the torrents do not seed")
    time.sleep(0.01)
print(json.dumps({"ports": [session.listen_port() for session in sessions]}), flush=True)
sys.stdin.read()
os._exit(0)
