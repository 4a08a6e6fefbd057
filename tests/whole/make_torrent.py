"""Makes a .torrent with libtorrent: make_torrent.py hybrid|padded SOURCE TORRENT PIECE_SIZE

hybrid: BitTorrent v1 and v2 in one, which implies padding files. padded: v1 with padding files (BEP 47).
"""
import os
import sys

import libtorrent

kind, source, torrent, piece_size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
storage = libtorrent.file_storage()
libtorrent.add_files(storage, source)
flags = {
    "hybrid": 0,
    "padded": libtorrent.create_torrent.v1_only | libtorrent.create_torrent.canonical_files,
}[kind]
creation = libtorrent.create_torrent(storage, piece_size, flags)
libtorrent.set_piece_hashes(creation, os.path.dirname(source))
with open(torrent, "wb") as file:
    file.write(libtorrent.bencode(creation.generate()))
