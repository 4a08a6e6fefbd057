"""Times reads of one piece each: seeks.py magnetfs FILE PIECE_LENGTH COUNT PATIENCE [SEED]
                               seeks.py libtorrent TORRENT DIRECTORY COUNT PATIENCE ADDRESS...

Prints JSON: {"first": seconds until the first byte of the file, "seeks": [seconds, ...]}. A piece that is here already
is not counted. PATIENCE, in seconds, bounds all of it.
"""
import json
import os
import random
import sys
import time

HERE = 0.010  # what is answered sooner was not fetched
PAUSE = 0.2


def magnetfs(path, piece_length, count, patience, seed=1):
    chance, piece_length, count = random.Random(int(seed)), int(piece_length), int(count)
    began = time.monotonic()
    file = os.open(path, os.O_RDONLY)

    def read(offset):
        start = time.monotonic()
        os.pread(file, 16384, offset)
        return time.monotonic() - start

    first = read(0)
    pieces = list(range(1, os.fstat(file).st_size // piece_length - 1))
    chance.shuffle(pieces)
    seeks, asked = [], []
    while len(seeks) < count and pieces and time.monotonic() - began < float(patience):
        time.sleep(PAUSE * chance.uniform(0.5, 1.5))
        piece = pieces.pop()
        took = read(piece * piece_length + chance.randrange(0, piece_length // 2, 4096))
        if took > HERE:
            seeks.append(took)
            asked.append(piece)
    print(json.dumps({"first": first, "seeks": seeks, "pieces": asked}))


def libtorrent(torrent, directory, count, patience, *addresses):
    import libtorrent as lt
    chance, count = random.Random(1), int(count)
    session = lt.session({
        "listen_interfaces": "127.0.0.1:0", "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
        "enable_natpmp": False, "enable_outgoing_utp": False, "connection_speed": 200,
        "alert_mask": lt.alert.category_t.progress_notification,
    })
    classes = lt.ip_filter()
    classes.add_rule("0.0.0.0", "255.255.255.255", 1 << 0)
    session.set_peer_class_filter(classes)
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = directory
    parameters.trackers = []
    began = time.monotonic()
    handle = session.add_torrent(parameters)
    handle.set_sequential_download(True)
    for address in addresses:
        host, port = address.rsplit(":", 1)
        handle.connect_peer((host, int(port)))

    def want(piece):
        start = time.monotonic()
        handle.set_piece_deadline(piece, 0, 0)
        while not handle.have_piece(piece):
            if time.monotonic() - began > float(patience):
                return None
            session.wait_for_alert(5)
            session.pop_alerts()
        return time.monotonic() - start

    first = want(0)
    pieces = list(range(handle.torrent_file().num_pieces() // 2, handle.torrent_file().num_pieces() - 1))
    chance.shuffle(pieces)
    seeks = []
    while first is not None and len(seeks) < count and pieces:
        time.sleep(PAUSE * chance.uniform(0.5, 1.5))
        piece = pieces.pop()
        if handle.have_piece(piece):
            continue
        took = want(piece)
        if took is None:
            break
        seeks.append(took)
    print(json.dumps({"first": first, "seeks": seeks}), flush=True)
    os._exit(0)


{"magnetfs": magnetfs, "libtorrent": libtorrent}[sys.argv[1]](*sys.argv[2:])
