"""Naive twins of the kernels: the same results from sets, bytes and big integers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

PAGE_SIZE = 4096
WORD_BITS = 64
WORD_MASK = 2**64 - 1
ZERO, PAGE, CONTINUE, XBZRLE = 0x02, 0x08, 0x20, 0x40
NEXT, MORE, BAD_PAGE, BAD_FILL = range(4)


def pages_of(bitmap: Iterable[int]) -> list[int]:
    """Give the numbers of the bits that are set, ascending."""
    return [
        WORD_BITS * index + bit
        for index, word in enumerate(bitmap)
        for bit in range(WORD_BITS)
        if int(word) >> bit & 1
    ]


def bitmap_of(pages: Iterable[int], words: int) -> list[int]:
    """Give the words in which the bits of the pages are set."""
    bitmap = [0] * words
    for page in pages:
        bitmap[page // WORD_BITS] |= 1 << page % WORD_BITS
    return bitmap


def runs_of(bitmap: Iterable[int]) -> list[tuple[int, int]]:
    """Give the first page and the length of each run of bits that are set, ascending."""
    runs: list[tuple[int, int]] = []
    for page in pages_of(bitmap):
        if runs and sum(runs[-1]) == page:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((page, 1))
    return runs


def page(memory: bytes, number: int) -> bytes:
    """Give one page."""
    return memory[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]


def gather(memory: bytes, pages: Iterable[int]) -> bytes:
    """Give pages one behind the other."""
    return b"".join(page(memory, number) for number in pages)


def flush(ram: bytes, cache: bytes, bitmap: Iterable[int]) -> bytes:
    """Give RAM with the marked pages taken from the cache."""
    marked = set(pages_of(bitmap))
    count = len(ram) // PAGE_SIZE
    return b"".join(page(cache if number in marked else ram, number) for number in range(count))


def zero_pages(memory: bytes) -> set[int]:
    """Give the pages that are all 0."""
    return {number for number in range(len(memory) // PAGE_SIZE) if not any(page(memory, number))}


def different_pages(memory: bytes, other: bytes) -> set[int]:
    """Give the pages that are not the same in two memories."""
    pages = range(len(memory) // PAGE_SIZE)
    return {number for number in pages if page(memory, number) != page(other, number)}


def page_records(
    memory: bytes, pages: Sequence[int], first_page: int, name: bytes | None = None
) -> bytes:
    """Give the records of pages; the first one names the block, if a name is given."""
    records = bytearray()
    for number in pages:
        data = page(memory, number)
        zero = not any(data)
        flags = ZERO if zero else PAGE
        if name is None:
            flags |= CONTINUE
        records += ((number - first_page) * PAGE_SIZE | flags).to_bytes(8, "big")
        if name is not None:
            records += bytes([len(name)]) + name
            name = None
        records += b"\0" if zero else data
    return bytes(records)


def take_page_records(
    data: bytes, memory: bytearray, marked: set[int], first_page: int, block_pages: int
) -> tuple[int, int, int, int, int]:
    """Move the pages of records to their places and mark them.

    Returns the status, the bytes taken, the records taken, the ZERO records among them, and the
    offset or byte that is bad, or 0.
    """
    at = pages = zero_pages = 0
    while len(data) - at >= 8:
        header = int.from_bytes(data[at : at + 8], "big")
        offset, flags = header // PAGE_SIZE * PAGE_SIZE, header % PAGE_SIZE
        if flags not in (PAGE | CONTINUE, ZERO | CONTINUE):
            return NEXT, at, pages, zero_pages, 0
        if offset >= block_pages * PAGE_SIZE:
            return BAD_PAGE, at, pages, zero_pages, offset
        length = PAGE_SIZE if flags & PAGE else 1
        body = data[at + 8 : at + 8 + length]
        if len(body) < length:
            break
        if flags & ZERO and body != b"\0":
            return BAD_FILL, at, pages, zero_pages, body[0]
        begin = first_page * PAGE_SIZE + offset
        memory[begin : begin + PAGE_SIZE] = body if flags & PAGE else bytes(PAGE_SIZE)
        marked.add(begin // PAGE_SIZE)
        at += 8 + length
        pages += 1
        zero_pages += length == 1
    return MORE, at, pages, zero_pages, 0


_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
_PRIME32_1, _PRIME32_2, _PRIME32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
_PRIME64_1, _PRIME64_2, _PRIME64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_PRIME64_4, _PRIME64_5, _PRIME_MX1 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5, 0x165667919E3779F9


def _words(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]


def _derived_secret(seed: int) -> bytes:
    words = [
        (word - seed if index % 2 else word + seed) & WORD_MASK
        for index, word in enumerate(_words(_SECRET))
    ]
    return b"".join(word.to_bytes(8, "little") for word in words)


def _accumulate(accumulators: list[int], stripe: bytes, secret: bytes) -> None:
    for lane, (value, key) in enumerate(zip(_words(stripe), _words(secret), strict=True)):
        key ^= value
        accumulators[lane ^ 1] = (accumulators[lane ^ 1] + value) & WORD_MASK
        product = (key & 0xFFFFFFFF) * (key >> 32)
        accumulators[lane] = (accumulators[lane] + product) & WORD_MASK


def xxh3_64(data: bytes, seed: int = 0) -> int:
    """Give XXH3_64bits_withSeed of more than 240 bytes, step by step as in the specification."""
    secret, accumulators = _xxh3_accumulators(data, seed)
    return _merged(accumulators, secret[11:75], len(data) * _PRIME64_1)


def xxh3_128(data: bytes, seed: int = 0) -> tuple[int, int]:
    """Give the upper and the lower half of XXH3_128bits_withSeed of more than 240 bytes."""
    secret, accumulators = _xxh3_accumulators(data, seed)
    high = _merged(accumulators, secret[-75:-11], ~(len(data) * _PRIME64_2))
    return high, _merged(accumulators, secret[11:75], len(data) * _PRIME64_1)


def _xxh3_accumulators(data: bytes, seed: int) -> tuple[bytes, list[int]]:
    secret = _derived_secret(seed)
    accumulators = [
        _PRIME32_3, _PRIME64_1, _PRIME64_2, _PRIME64_3,
        _PRIME64_4, _PRIME32_2, _PRIME64_5, _PRIME32_1,
    ]  # fmt: skip
    stripes = (len(data) - 1) // 64
    for stripe in range(stripes):
        within = stripe % 16
        chunk = data[64 * stripe : 64 * stripe + 64]
        _accumulate(accumulators, chunk, secret[8 * within : 8 * within + 64])
        if within == 15:
            for lane, key in enumerate(_words(secret[-64:])):
                value = accumulators[lane]
                accumulators[lane] = (value ^ value >> 47 ^ key) * _PRIME32_1 & WORD_MASK
    _accumulate(accumulators, data[-64:], secret[-71:-7])
    return secret, accumulators


def _merged(accumulators: list[int], key: bytes, result: int) -> int:
    keys = _words(key)
    for lane in range(0, 8, 2):
        left, right = accumulators[lane] ^ keys[lane], accumulators[lane + 1] ^ keys[lane + 1]
        product = left * right
        result += product & WORD_MASK ^ product >> 64
    result &= WORD_MASK
    result = (result ^ result >> 37) * _PRIME_MX1 & WORD_MASK
    return result ^ result >> 32


def hash_pages(memory: bytes, seed: int) -> list[int]:
    """Give the digest of each page."""
    return [xxh3_64(page(memory, number), seed) for number in range(len(memory) // PAGE_SIZE)]


def hash_listed_pages(memory: bytes, pages: Iterable[int], seed: int) -> list[int]:
    """Give the two halves of the hash of each listed page, one behind the other."""
    return [half for number in pages for half in xxh3_128(page(memory, number), seed)]


def splitmix64(x: int) -> int:
    """Give one output of SplitMix64, as in its paper."""
    x = (x + 0x9E3779B97F4A7C15) & WORD_MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & WORD_MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & WORD_MASK
    return x ^ x >> 31


def sector(disk: int, number: int, sequence: int, seed: int) -> bytes:
    """Give a sector as a write with a sequence number leaves it."""
    key = splitmix64(splitmix64(splitmix64(seed ^ disk) ^ number) ^ sequence)
    words = [int.from_bytes(b"COLOSECT", "little"), disk, number, sequence, seed]
    words += [splitmix64((key + place) & WORD_MASK) for place in range(len(words), 64)]
    return b"".join(word.to_bytes(8, "little") for word in words)


def right_contents(history: Iterable[tuple[str, int]], cache_lost: bool) -> set[int]:
    """Give the writes of which a sector may be, 0 for zeros, by the history of its run.

    Parameters
    ----------
    history
        In order ``begin-write`` and ``begin-discard`` with a sequence number, ``done`` and
        ``done-fua`` if the last one has succeeded, and ``flush``, of all that is done.
    cache_lost
        Whether only what was flushed is sure.
    """
    right, sure = [0], 0
    for what, sequence in history:
        if what.startswith("begin"):
            right.append(sequence if what == "begin-write" else 0)
            continue
        if what != "flush":
            sure = len(right) - 1
        if what != "done" or not cache_lost:
            right, sure = right[sure:], 0
    return set(right)


def guest_step(
    program: str, seed: int, work: int, ram: bytearray, screen: bytearray, table: list[int]
) -> set[int]:
    """Do one step of a guest program; give the pages written, those of the screen as -1 - page."""
    if program == "idle":
        return set()
    pages = len(ram) // 4096
    random = splitmix64(seed ^ splitmix64(work))
    if program == "sequential":
        page = work % pages
    elif program == "hotcold":
        rank = next((r for r in range(pages - 1) if table[r] > random), pages - 1)
        page = rank * table[pages] % pages
    else:
        page = random % pages
    value = splitmix64(random)
    at = page * 4096 + value % 512 * 8
    ram[at : at + 8] = value.to_bytes(8, "little")
    written = {page}
    if work % 64 == 0:
        pixel = work // 64 % len(screen)
        screen[pixel] = (screen[pixel] + 1 + random % 255) % 256
        written.add(-1 - pixel // 4096)
    return written


def multifd_packets(
    memory: bytes,
    pages: Sequence[int],
    first_page: int,
    name: bytes,
    turn: tuple[int, int],
    number: int,
    carried: bool,
) -> bytes:
    """Encode one channel's packets of a page list, field by field."""
    stream = b""
    chunks = [pages[i : i + 128] for i in range(0, len(pages), 128)]
    for index, chunk in enumerate(chunks):
        if index % turn[1] != turn[0]:
            continue
        content = {page: memory[page * 4096 : page * 4096 + 4096] for page in chunk}
        zero = [page for page in chunk if carried and not any(content[page])]
        normal = [page for page in chunk if page not in zero]
        sizes = (0x11223344, 1, 0, 128, len(normal), len(normal) * 4096 * carried)
        stream += b"".join(size.to_bytes(4, "big") for size in sizes)
        stream += (number + index).to_bytes(8, "big") + len(zero).to_bytes(4, "big") + bytes(28)
        stream += name.ljust(256, b"\0")
        # Zero pages are found in order and named from the last entry backwards.
        offsets = [(page - first_page) * 4096 for page in normal + zero[::-1]]
        stream += b"".join(offset.to_bytes(8, "big") for offset in offsets).ljust(1024, b"\0")
        if carried:
            stream += b"".join(content[page] for page in normal)
    return stream


def uleb128(number: int) -> bytes:
    """Encode a number, the lowest seven bits first."""
    if number < 128:
        return bytes([number])
    return bytes([number % 128 + 128]) + uleb128(number // 128)


def xbzrle_encode(old: bytes, new: bytes, limit: int) -> bytes | None:
    """Encode a page byte by byte; None if QEMU finds no room, where and when it looks for it."""
    encoding = b""
    at = 0
    while at < len(new):
        if len(encoding) + 2 > limit:
            return None
        begin = at
        while at < len(new) and old[at] == new[at]:
            at += 1
        if at == len(new):
            break
        encoding += uleb128(at - begin)
        if len(encoding) + 2 > limit:
            return None
        begin = at
        while at < len(new) and old[at] != new[at]:
            at += 1
        encoding += uleb128(at - begin)
        if len(encoding) + at - begin > limit:
            return None
        encoding += new[begin:at]
    return encoding


def xbzrle_decode(page: bytes, data: bytes) -> tuple[int, bytes]:
    """Decode over a page; the decoded length and the page, or -1 and what was decoded before."""
    decoded = bytearray(page)
    rest = data
    place = 0
    while rest:
        lengths = []
        for _ in range(2):
            size = 1 + (rest[:1] >= b"\x80")
            if len(rest) < size or rest[size - 1] >= 128:
                return -1, bytes(decoded)
            lengths.append(sum(byte % 128 << 7 * i for i, byte in enumerate(rest[:size])))
            if lengths[-1] == 0 and (len(lengths) == 2 or len(rest) < len(data)):
                return -1, bytes(decoded)
            rest = rest[size:]
        unchanged, changed = lengths
        place += unchanged
        if len(rest) < changed or place + changed > len(page):
            return -1, bytes(decoded)
        decoded[place : place + changed] = rest[:changed]
        rest = rest[changed:]
        place += changed
    return place, bytes(decoded)


class XBZRLESender:
    """A sender's cache of pages as they were sent last: by slot, a page's number, bytes and age."""

    def __init__(self, slots: int, lifetime: int) -> None:
        self.slots, self.lifetime = slots, lifetime
        self.cache: dict[int, tuple[int, bytes, int]] = {}

    def records(
        self, memory: bytes, pages: Sequence[int], first_page: int, name: bytes | None, age: int
    ) -> bytes:
        """Give the records of pages; the first one names the block, if a name is given."""
        records = bytearray()
        for number in pages:
            data = page(memory, number)
            kept, old, used = self.cache.get(number % self.slots, (number, None, age))
            flags, body = PAGE, data
            if not any(data):
                flags, body = ZERO, b"\0"
            elif kept == number and old is not None:
                encoding = xbzrle_encode(old, data, PAGE_SIZE)
                if encoding is not None:
                    flags, body = XBZRLE, b"\1" + len(encoding).to_bytes(2, "big") + encoding
            if kept == number or used + self.lifetime <= age:
                self.cache[number % self.slots] = number, data, age
            if body == b"\1\0\0":
                continue
            if name is None:
                flags |= CONTINUE
            records += ((number - first_page) * PAGE_SIZE | flags).to_bytes(8, "big")
            if name is not None:
                records += bytes([len(name)]) + name
                name = None
            records += body
        return bytes(records)


def compare(memory: bytes, shadow: bytearray) -> set[int]:
    """Give the pages that differ, and make them equal."""
    differing = set()
    for number in range(len(memory) // PAGE_SIZE):
        if page(memory, number) != page(shadow, number):
            shadow[number * PAGE_SIZE : (number + 1) * PAGE_SIZE] = page(memory, number)
            differing.add(number)
    return differing


def distinct_pages(writes: Iterable[tuple[int, int]], total: int, window: int) -> float:
    """Give the mean number of distinct pages in windows; writes are pages and intervals."""
    found = list(writes)
    windows = [
        {page for page, interval in found if begin <= interval < begin + window}
        for begin in range(total - window + 1)
    ]
    return sum(map(len, windows)) / len(windows)


def replay_step(
    pages: Sequence[int],
    target: int,
    changed: int,
    share: int,
    seed: int,
    step: int,
    ram: bytearray,
) -> None:
    """Do a step of the program replay, whose page writes are in order, numbered without gaps."""
    random = splitmix64(seed ^ splitmix64(step))
    begin = pages[step % len(pages)] % target * PAGE_SIZE
    for number in range(changed):
        value = splitmix64(random + number & WORD_MASK)
        at = begin + (random + number) % 512 * 8
        kept = value if value >> 54 < share else value & 0xFF
        ram[at : at + 8] = kept.to_bytes(8, "little")


def is_xbzrle(body: bytes) -> bool:
    """Say whether bytes are an XBZRLE encoding of changes within one page."""
    at = place = 0
    lengths: list[int] = []
    while at < len(body):
        number = []
        while body[at] & 0x80 and len(number) < 1 and at + 1 < len(body):
            number.append(body[at] & 0x7F)
            at += 1
        if body[at] & 0x80:
            return False
        number.append(body[at])
        at += 1
        lengths.append(sum(digit << 7 * i for i, digit in enumerate(number)))
        place += lengths[-1]
        if len(lengths) % 2 == 0:
            at += lengths[-1]
    return at == len(body) and len(lengths) % 2 == 0 and place <= PAGE_SIZE and all(lengths[1:])


def count_records(data: bytes, block_pages: int, kept: range) -> tuple[str, int, list[list[int]]]:
    """Give why counting page records ends, where, and the page and kind of each that was taken."""
    at = 0
    taken: list[list[int]] = []
    while len(data) - at >= 8:
        word = int.from_bytes(data[at : at + 8], "big")
        flags, page = word % PAGE_SIZE, word // PAGE_SIZE
        head, size = 8, None
        if flags == PAGE | CONTINUE:
            kind, size = 0, PAGE_SIZE
        elif flags == ZERO | CONTINUE:
            kind, size = 1, 1
        elif flags == XBZRLE | CONTINUE:
            kind, head = 2, 11
        elif flags == 0x100 | CONTINUE:
            kind, head = 3, 12
        else:
            return "NEXT", at, taken
        if len(data) - at < head:
            break
        if kind == 2:
            size = int.from_bytes(data[at + 9 : at + 11], "big")
        elif kind == 3:
            size = int.from_bytes(data[at + 8 : at + 12], "big")
        assert size is not None
        if (kind == 2 and data[at + 8] != 1) or (kind > 1 and size > 2 * PAGE_SIZE):
            return "NEXT", at, taken
        if page >= block_pages:
            return "BAD_PAGE", at, taken
        end = at + head + size
        if end > len(data):
            break
        if kind == 2 and not is_xbzrle(data[at + head : end]):
            return "NEXT", at, taken
        unusual = kind > 1 or (kind == 1 and data[end - 1]) or len(kept) == 1
        if page in kept and unusual:
            return "NEXT", at, taken
        taken.append([page, kind])
        at = end
    return "MORE", at, taken
