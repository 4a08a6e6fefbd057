"""Reads a file of a mount and compares every byte with its source: comparer.py SHOWN SOURCE SEED

Every chunk once: half of the readers from a place of their own to the end and round to it, with seeks; the others in any
order. Prints how long the longest read took, and the sum of bytes, as JSON. A wrong byte or a failed read ends it with 1.
"""
import json
import os
import random
import sys
import time

shown, source, seed = sys.argv[1:4]
chance = random.Random(int(seed))
chunk = 64 * 1024
size = os.path.getsize(source)
order = list(range(0, size, chunk))
if int(seed) % 2:
    chance.shuffle(order)
else:
    start = chance.randrange(len(order))
    runs = [order[start:] + order[:start]]
    order = []
    while runs:
        run = runs.pop(0)
        cut = chance.randrange(8, 128)
        order += run[:cut]
        if run[cut:]:
            runs.insert(chance.randrange(2), run[cut:])
worst, worst_at, slow = 0.0, 0, []
mount, truth = os.open(shown, os.O_RDONLY), os.open(source, os.O_RDONLY)
for offset in order:
    began = time.monotonic()
    data = os.pread(mount, chunk, offset)
    took = time.monotonic() - began
    if data != os.pread(truth, chunk, offset):
        sys.exit(f"{len(data)} bytes at {offset} are not those of the source")
    if took > worst:
        worst, worst_at = took, offset
    if took > 1:
        slow.append(round(took, 1))
print(json.dumps({"worst": worst, "at": worst_at, "slow": slow, "bytes": size}))
