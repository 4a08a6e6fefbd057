"""A libtorrent seeder on loopback: seeder.py [options] TORRENT DIRECTORY [TORRENT DIRECTORY]...

Prints one JSON line, {"port": N}, when it listens and every torrent seeds; then answers each line of its input with
{"uploaded": payload bytes sent so far}. The end of its input ends it, so it does not outlive who started it.
"""
import argparse
import json
import os
import shutil
import sys
import time

import libtorrent

EVERY = 10  # a corrupt seeder has one wrong byte in every tenth piece


def corrupt_copy(info, directory, copy):
    """Copies the torrent's files and flips a byte in the middle of every tenth piece, beginning with the fifth."""
    files = info.files()
    for index in range(files.num_files()):
        if files.file_flags(index) & libtorrent.file_storage.flag_pad_file:
            continue
        path = files.file_path(index)
        os.makedirs(os.path.dirname(os.path.join(copy, path)), exist_ok=True)
        shutil.copyfile(os.path.join(directory, path), os.path.join(copy, path))
    for piece in range(5 % info.num_pieces(), info.num_pieces(), EVERY):
        for part in info.map_block(piece, info.piece_size(piece) // 2, 1):
            with open(os.path.join(copy, files.file_path(part.file_index)), "r+b") as file:
                file.seek(part.offset)
                byte = file.read(1)[0]
                file.seek(part.offset)
                file.write(bytes([byte ^ 0xFF]))
    return copy


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--limit", type=int, default=0, help="payload bytes a second, 0 for none")
    parser.add_argument("--corrupt", metavar="DIRECTORY", help="where to put a damaged copy, which is then seeded")
    parser.add_argument("pairs", nargs="+")
    options = parser.parse_args()

    session = libtorrent.session({
        "listen_interfaces": options.listen,
        "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        "enable_outgoing_utp": False, "enable_incoming_utp": False,
        "disable_hash_checks": True, "alert_mask": 0, "allow_multiple_connections_per_ip": True,
        "upload_rate_limit": options.limit, "rate_limit_ip_overhead": False,
        "unchoke_slots_limit": 64, "inactivity_timeout": 600, "active_seeds": -1, "active_limit": -1,
        "connections_limit": 200,
    })
    # Peers on loopback are in a class of their own that no limit holds for: all are put into the session's class, 0.
    classes = libtorrent.ip_filter()
    classes.add_rule("0.0.0.0", "255.255.255.255", 1 << 0)
    session.set_peer_class_filter(classes)
    handles = []
    for torrent, directory in zip(options.pairs[::2], options.pairs[1::2]):
        parameters = libtorrent.add_torrent_params()
        parameters.ti = libtorrent.torrent_info(torrent)
        if options.corrupt:
            directory = corrupt_copy(parameters.ti, directory, options.corrupt)
        parameters.save_path = directory
        parameters.trackers = []
        parameters.flags = libtorrent.torrent_flags.seed_mode
        handles.append(session.add_torrent(parameters))

    deadline = time.monotonic() + 30
    while not (session.is_listening() and all(handle.status().is_seeding for handle in handles)):
        if time.monotonic() > deadline:
            sys.exit("the torrents do not seed: " + ", ".join(str(handle.status().state) for handle in handles))
        time.sleep(0.01)
    wanted = int(options.listen.rsplit(":", 1)[1])
    if wanted not in (0, session.listen_port()):
        sys.exit(f"{options.listen} is not free")
    print(json.dumps({"port": session.listen_port()}), flush=True)
    for _ in sys.stdin:
        uploaded = sum(handle.status().total_payload_upload for handle in handles)
        print(json.dumps({"uploaded": uploaded}), flush=True)


main()
