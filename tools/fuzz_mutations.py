"""Random changes of files: of their bytes, and of the values of a JSON text."""

from __future__ import annotations

import json
import math
import random
import re
from typing import Any

_BYTES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF, 0x0A, 0x22, 0x2D, 0x39, 0x5B, 0x7B)
_NUMBERS = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**61, 2**62, 2**63, 2**64 - 1)
_DEEP, _LONG = '@deep', '@long'  # Placeholders for values that Python's JSON writer refuses.


def of_bytes(draw: random.Random, content: bytes) -> bytes:
    """Changes one to four places: flips, numbers of any width, runs, cuts, insertions, repetitions."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        place = draw.randrange(len(data) + 1)
        length = min(draw.choice((1, 2, 4, 8, 16, 64, 256)), len(data) - place)
        match draw.randrange(8):
            case 0 | 1 if length:
                data[place] ^= 1 << draw.randrange(8)
            case 2 if length:
                data[place] = draw.choice(_BYTES)
            case 3:
                width = draw.choice((2, 4, 8))
                number = draw.choice(_NUMBERS) % 256**width
                data[place : place + width] = number.to_bytes(width, draw.choice(('little', 'big')))
            case 4:
                data[place : place + length] = bytes([draw.choice(_BYTES)]) * length
            case 5:
                del data[place : place + length]
            case 6:
                other = draw.randrange(len(data) + 1)
                data[place:place] = data[other : other + length]
            case _:
                if draw.random() < 0.3:
                    del data[place:]
                else:
                    data[place:place] = draw.randbytes(length)
    return bytes(data)


def of_json(draw: random.Random, content: bytes) -> bytes:
    """Changes one to three values of a JSON text."""
    root = [json.loads(content)]
    for _ in range(draw.choice((1, 1, 2, 3))):
        holder, key = draw.choice(_places(root))
        match draw.randrange(6):
            case 0 if holder is not root:
                del holder[key]
            case 1 if isinstance(holder, list) and holder is not root:
                holder.extend([holder[key]] * draw.choice((1, 3, 300)))
            case 2:
                other, name = draw.choice(_places(root))
                holder[key] = json.loads(json.dumps(other[name]))
            case 3 if isinstance(holder, dict):
                holder[draw.choice(('', 'id', 'ä\ud800', 'x' * 5000, key + ' '))] = holder.pop(key)
            case _:
                holder[key] = _odd(draw, holder[key])
    text = json.dumps(root[0], ensure_ascii=draw.random() < 0.5)
    text = text.replace(f'"{_DEEP}"', '[' * 20_000 + ']' * 20_000)
    return re.sub(f'"{_LONG}"', '9' * 5000, text).encode('utf-8', 'surrogatepass')


def of_lines(draw: random.Random, content: bytes) -> bytes:
    """Changes values of one line of a file that has a JSON object on each."""
    lines = content.splitlines(keepends=True)
    place = draw.randrange(len(lines))
    lines[place] = of_json(draw, lines[place]) + b'\n'
    return b''.join(lines)


def of_words(draw: random.Random, content: bytes) -> bytes:
    """Replaces or repeats one word of a text file."""
    words = re.split(rb'(\s+)', content)
    place = draw.randrange(0, len(words), 2)
    odd = (b'', b'-1', b'2', b'0.5', b'1e400', b'nan', b'inf', b'-inf', b'9' * 5000, b'0x1', b'\xff', b'\0', b'text')
    marks = (b'[', b'{', b'&a [*a, *a]', b'*a', b'!!python/name:os.system', b'[' * 20_000, b'../../x', b'/dev/zero')
    words[place] = draw.choice((*odd, *marks, words[place] * 2, (words[place] + b' ') * 5000))
    return b''.join(words)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """All pairs of a container and a key or index in it."""
    found, waiting = [], [value]
    while waiting:
        each = waiting.pop()
        for key in each.keys() if isinstance(each, dict) else range(len(each)):
            found.append((each, key))
            if isinstance(each[key], dict | list):
                waiting.append(each[key])
    return found


def _odd(draw: random.Random, before: Any) -> Any:
    simple = (None, True, False, 0, -1, 1, 0.5, -0.0, '', '0', 'text', 'ü\0\ud800', '../../x', '/dev/zero', [], {})
    numbers = (2**31, 2**63, 2**64, 10**400, 1e308, -1e308, 1e-320, math.nan, math.inf, _LONG)
    forms = ([before], {'a': before}, [[]], [{}], [None] * 3, _DEEP, 'y' * 100_000, [0] * 10_000, ' ' * 50)
    outlines = ([[19990, 19990, -19990, -19990] * 2000], [[1, 1, 2, 2, 1e9, 5]], {'counts': [9] * 999, 'size': [8, 9]})
    return draw.choice(draw.choice((simple, simple, numbers, forms, outlines)))
