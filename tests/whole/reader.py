"""Reads a file in an unusual way and compares each part with the source: reader.py MODE FILE SOURCE

random: 200 reads of odd sizes at random offsets, then every block in random order; backwards: from the end to the
beginning; mmap: through a mapping, first and last page first, then all of it. Ends with a message at the first
difference.
"""
import mmap
import os
import random
import sys

mode, path, source_path = sys.argv[1:4]
with open(source_path, "rb") as file:
    source = file.read()
size = os.stat(path).st_size
if size != len(source):
    sys.exit(f"{path} has {size} bytes, {source_path} has {len(source)}")


def compare(offset, data, wanted):
    if data != source[offset:offset + wanted]:
        sys.exit(f"{path}: other bytes at {offset}, {len(data)} of {wanted}")


def block_order(block):
    return [(offset, block) for offset in range(0, size, block)]


chance = random.Random(1)
if mode == "mmap":
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        for offset, wanted in [(0, 4096), (max(size - 4096, 0), 4096)] + block_order(1 << 20):
            compare(offset, mapping[offset:offset + wanted], wanted)
else:
    if mode == "random":
        reads = [(chance.randrange(size), chance.randrange(1, 200_000)) for _ in range(200)]
        blocks = block_order(65_536)
        chance.shuffle(blocks)
        reads += blocks
    elif mode == "backwards":
        reads = block_order(50_001)[::-1]
    else:
        sys.exit(f"no mode {mode}")
    descriptor = os.open(path, os.O_RDONLY)
    for offset, wanted in reads:
        # A read(2) of a regular file is short only at its end: that is checked here too.
        compare(offset, os.pread(descriptor, wanted, offset), wanted)
