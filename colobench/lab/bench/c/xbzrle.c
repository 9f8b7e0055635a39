/* What the XBZRLE kernels of colobench are measured against: the same encoding in C, once with
 * AVX-512BW and once for any CPU, and its decoder. Build it with cc -O3 -march=native -shared -fPIC.
 *
 * Both encoders give what QEMU's generic encoder gives, its rule for what does not fit included: a
 * length needs two free bytes before it is written, even one that then turns out not to be needed
 * because the rest of the page is unchanged. They return the length of the encoding, 0 for a page
 * that is unchanged, -1 for one whose encoding does not fit into `limit` bytes. They write no byte
 * beyond `limit`.
 *
 * The *_pages functions do many pages in one call: old_memory and new_memory have the same pages,
 * the encodings lie one behind the other in `out`, and the bytes there are returned.
 */

#include <stdint.h>
#include <string.h>

#ifdef __AVX512BW__
#include <immintrin.h>
#endif

#define PAGE_SIZE 4096

typedef int64_t encoder(const uint8_t *old_page, const uint8_t *new_page, uint8_t *out,
                        int64_t limit);

static inline int64_t put_length(uint8_t *out, int64_t length)
{
    if (length < 128) {
        out[0] = (uint8_t)length;
        return 1;
    }
    out[0] = (uint8_t)(length | 128);
    out[1] = (uint8_t)(length >> 7);
    return 2;
}

static inline int64_t take_length(const uint8_t *data, int64_t bytes, int64_t *length)
{
    if (bytes >= 1 && data[0] < 128) {
        *length = data[0];
        return 1;
    }
    if (bytes >= 2 && data[1] < 128) {
        *length = (data[0] & 127) | data[1] << 7;
        return 2;
    }
    return -1;
}

static inline int64_t encode_pages(encoder *encode, const uint8_t *old_memory,
                                   const uint8_t *new_memory, const int32_t *pages, int64_t count,
                                   uint8_t *out, int32_t *lengths)
{
    uint8_t *to = out;
    for (int64_t i = 0; i < count; i++) {
        int64_t begin = (int64_t)pages[i] * PAGE_SIZE;
        int64_t length = encode(old_memory + begin, new_memory + begin, to, PAGE_SIZE);
        lengths[i] = (int32_t)length;
        to += length > 0 ? length : 0;
    }
    return to - out;
}

/* Eight bytes at a time inside of runs, single bytes at their ends. */
int64_t xbzrle_encode_generic(const uint8_t *old_page, const uint8_t *new_page, uint8_t *out,
                              int64_t limit)
{
    const uint64_t ones = 0x0101010101010101u;
    int64_t at = 0, length = 0;
    while (at < PAGE_SIZE) {
        int64_t run = at;
        if (length + 2 > limit)
            return -1;
        for (;;) {
            uint64_t was, is;
            if (at <= PAGE_SIZE - 8) {
                memcpy(&was, old_page + at, 8);
                memcpy(&is, new_page + at, 8);
                if (was == is) {
                    at += 8;
                    continue;
                }
            }
            while (at < PAGE_SIZE && old_page[at] == new_page[at])
                at++;
            break;
        }
        if (at == PAGE_SIZE)
            return length;
        length += put_length(out + length, at - run);
        if (length + 2 > limit)
            return -1;
        run = at;
        for (;;) {
            uint64_t was, is, differs;
            if (at <= PAGE_SIZE - 8) {
                memcpy(&was, old_page + at, 8);
                memcpy(&is, new_page + at, 8);
                differs = was ^ is;
                if (!((differs - ones) & ~differs & ones << 7)) {
                    at += 8;
                    continue;
                }
            }
            while (at < PAGE_SIZE && old_page[at] != new_page[at])
                at++;
            break;
        }
        length += put_length(out + length, at - run);
        if (length + at - run > limit)
            return -1;
        memcpy(out + length, new_page + run, (size_t)(at - run));
        length += at - run;
    }
    return length;
}

int64_t xbzrle_encode_pages_generic(const uint8_t *old_memory, const uint8_t *new_memory,
                                    const int32_t *pages, int64_t count, uint8_t *out,
                                    int32_t *lengths)
{
    return encode_pages(xbzrle_encode_generic, old_memory, new_memory, pages, count, out, lengths);
}

#ifdef __AVX512BW__

/* 64 bytes are compared at once, into a mask of those that are equal. Runs are measured by counting
 * the equal, or the different, bytes at the mask's lower end and shifting them out; what reaches the
 * end of a block goes on in the next one. */
int64_t xbzrle_encode_avx512(const uint8_t *old_page, const uint8_t *new_page, uint8_t *out,
                             int64_t limit)
{
    int64_t length = 0, run = 0;
    int changed = 0;
    if (limit < 2)
        return -1;
    for (int64_t block = 0; block < PAGE_SIZE; block += 64) {
        __m512i was = _mm512_loadu_si512(old_page + block);
        __m512i is = _mm512_loadu_si512(new_page + block);
        uint64_t equal = _mm512_cmpeq_epi8_mask(was, is);
        if (equal == (changed ? 0 : ~UINT64_C(0)))
            continue;
        int64_t at = block, left = 64;
        for (;;) {
            uint64_t ends = changed ? equal : ~equal;
            int64_t count = ends ? __builtin_ctzll(ends) : 64;
            if (count >= left)
                break;
            at += count;
            left -= count;
            equal >>= count;
            if (changed) {
                length += put_length(out + length, at - run);
                if (length + at - run > limit)
                    return -1;
                memcpy(out + length, new_page + run, (size_t)(at - run));
                length += at - run;
            } else {
                length += put_length(out + length, at - run);
            }
            if (length + 2 > limit)
                return -1;
            run = at;
            changed = !changed;
        }
    }
    if (changed) {
        length += put_length(out + length, PAGE_SIZE - run);
        if (length + PAGE_SIZE - run > limit)
            return -1;
        memcpy(out + length, new_page + run, (size_t)(PAGE_SIZE - run));
        length += PAGE_SIZE - run;
    }
    return length;
}

int64_t xbzrle_encode_pages_avx512(const uint8_t *old_memory, const uint8_t *new_memory,
                                   const int32_t *pages, int64_t count, uint8_t *out,
                                   int32_t *lengths)
{
    return encode_pages(xbzrle_encode_avx512, old_memory, new_memory, pages, count, out, lengths);
}

#endif

/* Decode over a page: the bytes of the page up to the end of the last run, or -1 if the data is not
 * an encoding. Nothing beyond the page is written. */
int64_t xbzrle_decode(uint8_t *page, const uint8_t *data, int64_t length)
{
    int64_t at = 0, place = 0;
    while (at < length) {
        int64_t run, bytes = take_length(data + at, length - at, &run);
        if (bytes < 0 || (at && !run))
            return -1;
        at += bytes;
        place += run;
        bytes = take_length(data + at, length - at, &run);
        if (bytes < 0 || !run)
            return -1;
        at += bytes;
        if (run > PAGE_SIZE - place || run > length - at)
            return -1;
        memcpy(page + place, data + at, (size_t)run);
        place += run;
        at += run;
    }
    return place;
}

int64_t xbzrle_decode_pages(uint8_t *memory, const int32_t *pages, int64_t count,
                            const uint8_t *data, const int32_t *lengths)
{
    const uint8_t *from = data;
    for (int64_t i = 0; i < count; i++) {
        if (lengths[i] <= 0)
            continue;
        if (xbzrle_decode(memory + (int64_t)pages[i] * PAGE_SIZE, from, lengths[i]) < 0)
            return -1;
        from += lengths[i];
    }
    return from - data;
}
