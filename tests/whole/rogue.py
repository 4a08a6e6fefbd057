"""A peer that does not behave: rogue.py INFO_HASH FILE PIECE_LENGTH IP:PORT stall|lie|reorder SEED

It connects to a client again and again, says that it has everything, and then
  stall:   answers some requests, falls silent with the rest in its hands, and hangs up at last;
  lie:     sends a false byte in every fourth block;
  reorder: answers in any order and late, chokes and unchokes, answers some requests twice.
"""
import random
import socket
import struct
import sys
import time

info_hash, path, piece_length, peer, mode, seed = sys.argv[1:7]
piece_length = int(piece_length)
address = (peer.rsplit(":", 1)[0], int(peer.rsplit(":", 1)[1]))
chance = random.Random(int(seed))
file = open(path, "rb")
size = file.seek(0, 2)
pieces = -(-size // piece_length)
CHOKE, UNCHOKE, INTERESTED, BITFIELD, REQUEST, PIECE, CANCEL = 0, 1, 2, 5, 6, 7, 8


class Over(Exception):
    pass


class Peer:
    def __init__(self):
        self.socket = socket.create_connection(address, 5)
        self.received = b""
        self.queue = []
        self.choking = False
        peer_id = b"-XX0001-" + bytes(chance.choices(b"0123456789abcdef", k=12))
        self.socket.sendall(b"\x13BitTorrent protocol" + bytes(8) + bytes.fromhex(info_hash) + peer_id)
        self.until = time.monotonic() + chance.uniform(3, 8)
        self.wait(lambda: len(self.received) >= 68)
        self.received = self.received[68:]
        bits = bytearray(b"\xff" * (-(-pieces // 8)))
        if pieces % 8:
            bits[-1] = 0xFF << (8 - pieces % 8) & 0xFF
        self.send(BITFIELD, bytes(bits))
        self.send(UNCHOKE)

    def send(self, kind, payload=b""):
        self.socket.sendall(struct.pack(">IB", 1 + len(payload), kind) + payload)

    def receive(self, patience):
        self.socket.settimeout(max(patience, 0.001))
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            return
        if not data:
            raise Over
        self.received += data

    def wait(self, condition):
        while not condition():
            if time.monotonic() > self.until:
                raise Over
            self.receive(0.2)

    def messages(self):
        while len(self.received) >= 4:
            length, = struct.unpack_from(">I", self.received)
            if len(self.received) < 4 + length:
                return
            message, self.received = self.received[4:4 + length], self.received[4 + length:]
            if message:
                yield message[0], message[1:]

    def answer(self, request, false=False):
        piece, begin, length = request
        file.seek(piece * piece_length + begin)
        data = bytearray(file.read(length))
        if false:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        self.send(PIECE, struct.pack(">II", piece, begin) + data)

    def run(self):
        left = chance.randrange(5, 60)
        while time.monotonic() < self.until:
            self.receive(0.02)
            for kind, payload in self.messages():
                if kind == REQUEST and not self.choking:
                    self.queue.append(struct.unpack(">III", payload))
                elif kind == CANCEL:
                    request = struct.unpack(">III", payload)
                    self.queue = [other for other in self.queue if other != request]
            if mode == "stall":
                while self.queue and left:
                    self.answer(self.queue.pop(0))
                    left -= 1
            elif mode == "lie":
                # Not all at once: it is to be asked again while it is still believed.
                for request in self.queue[:2]:
                    self.answer(request, chance.random() < 0.25)
                del self.queue[:2]
            else:
                chance.shuffle(self.queue)
                for request in self.queue[:chance.randrange(4)]:
                    self.answer(request)
                    if chance.random() < 0.1:
                        self.answer(request)
                    self.queue.remove(request)
                if chance.random() < 0.03:
                    self.choking = not self.choking
                    self.send(CHOKE if self.choking else UNCHOKE)
                    if self.choking:
                        self.queue = []


while True:
    try:
        Peer().run()
    except (Over, OSError):
        pass
    time.sleep(chance.uniform(0.3, 1.5))
