"""What seeders can give at best: bare.py TORRENT PIECES PIECES ADDRESS...

A client without a program around it, which knows beforehand the pieces that will be needed. It says that it is
interested together with its handshake, keeps every seeder busy, asks none of them for a block that another was asked
for, and hashes nothing. First it fetches one list of pieces, as 3,4,900, from seeders that it has just met, then the
other from the same, warm ones. Prints JSON: [seconds from the first dial to the first list, seconds for the second].
"""
import json
import os
import selectors
import socket
import struct
import sys
import time

import libtorrent

BLOCK = 16384
DEPTH = 16  # blocks that a seeder is asked for at a time: what it may send in one of its half seconds, twice
PATIENCE = 60
CHOKE, UNCHOKE, INTERESTED, REQUEST, PIECE, HAVE_NONE = 0, 1, 2, 6, 7, 15


def message(kind, body=b""):
    return struct.pack(">IB", 1 + len(body), kind) + body


class Seeder:
    def __init__(self, info_hash, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # BEP 6 is the bit at the end.
        reserved, peer_id = bytes(7) + b"\x04", b"-BA0001-" + os.urandom(12)
        handshake = b"\x13BitTorrent protocol" + reserved + info_hash + peer_id
        self.socket.sendall(handshake + message(HAVE_NONE) + message(INTERESTED))
        self.buffer, self.greeted, self.choking, self.asked = b"", False, True, set()

    def messages(self):
        data = self.socket.recv(1 << 20)
        if not data:
            sys.exit("a seeder hung up")
        self.buffer += data
        if not self.greeted:
            if len(self.buffer) < 68:
                return
            self.greeted, self.buffer = True, self.buffer[68:]
        while len(self.buffer) >= 4:
            length = struct.unpack(">I", self.buffer[:4])[0]
            if len(self.buffer) < 4 + length:
                return
            body, self.buffer = self.buffer[4:4 + length], self.buffer[4 + length:]
            if body:
                yield body[0], body[1:]

    def ask(self, piece, block, length):
        self.asked.add((piece, block))
        self.socket.sendall(message(REQUEST, struct.pack(">III", piece, block * BLOCK, length)))


def fetch(info, seeders, pieces, deadline):
    blocks = [(piece, block) for piece in pieces for block in range(-(-info.piece_size(piece) // BLOCK))]
    wanted, free = set(blocks), iter(blocks)
    selector = selectors.DefaultSelector()
    for seeder in seeders:
        selector.register(seeder.socket, selectors.EVENT_READ, seeder)
    while True:
        for seeder in seeders:
            while not seeder.choking and len(seeder.asked) < DEPTH and (block := next(free, None)):
                seeder.ask(*block, min(BLOCK, info.piece_size(block[0]) - block[1] * BLOCK))
        if not wanted:
            return
        if time.monotonic() > deadline:
            sys.exit("the pieces did not come")
        for key, _ in selector.select(1):
            for kind, body in key.data.messages():
                if kind in (CHOKE, UNCHOKE):
                    key.data.choking = kind == CHOKE
                elif kind == PIECE:
                    piece, begin = struct.unpack(">II", body[:8])
                    key.data.asked.discard((piece, begin // BLOCK))
                    wanted.discard((piece, begin // BLOCK))


def main():
    info = libtorrent.torrent_info(sys.argv[1])
    lists = [[int(piece) for piece in pieces.split(",")] for pieces in sys.argv[2:4]]
    info_hash = bytes.fromhex(str(info.info_hash()))
    seconds = []
    began = time.monotonic()
    seeders = [Seeder(info_hash, address) for address in sys.argv[4:]]
    for pieces in lists:
        fetch(info, seeders, pieces, began + PATIENCE)
        seconds.append(time.monotonic() - began)
        began = time.monotonic()
    print(json.dumps(seconds))


main()
