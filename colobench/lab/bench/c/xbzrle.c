/* What the XBZRLE kernels of colobench are measured against: the same encoding in C, once with
 * vectors (AVX-512BW, AVX2 or NEON) and once for any CPU, and its decoder. Build it with cc -O3 -march=native -shared -fPIC.
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

#if defined(__AVX512BW__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
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
int64_t xbzrle_encode_plain(const uint8_t *old_page, const uint8_t *new_page, uint8_t *out,
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

int64_t xbzrle_encode_pages_plain(const uint8_t *old_memory, const uint8_t *new_memory,
                                    const int32_t *pages, int64_t count, uint8_t *out,
                                    int32_t *lengths)
{
    return encode_pages(xbzrle_encode_plain, old_memory, new_memory, pages, count, out, lengths);
}

#if defined(__AVX512BW__)

#define VECTOR(name) name##_avx512

/* One bit for each of 64 bytes that are equal. */
static inline uint64_t equal_bytes(const uint8_t *left, const uint8_t *right)
{
    return _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(left), _mm512_loadu_si512(right));
}

#elif defined(__AVX2__)

#define VECTOR(name) name##_avx2

static inline uint64_t equal_bytes(const uint8_t *left, const uint8_t *right)
{
    uint64_t equal = 0;
    for (int half = 0; half < 2; half++) {
        __m256i was = _mm256_loadu_si256((const __m256i *)(left + 32 * half));
        __m256i is = _mm256_loadu_si256((const __m256i *)(right + 32 * half));
        uint32_t mask = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(was, is));
        equal |= (uint64_t)mask << 32 * half;
    }
    return equal;
}

#elif defined(__ARM_NEON) && defined(__aarch64__)

#define VECTOR(name) name##_neon

/* Each of 16 bytes that are equal gives its own bit of eight; adding neighbours puts them together. */
static inline uint8x16_t equal_bits(const uint8_t *left, const uint8_t *right)
{
    const uint8x16_t own = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    return vandq_u8(vceqq_u8(vld1q_u8(left), vld1q_u8(right)), own);
}

static inline uint64_t equal_bytes(const uint8_t *left, const uint8_t *right)
{
    uint8x16_t first = vpaddq_u8(equal_bits(left, right), equal_bits(left + 16, right + 16));
    uint8x16_t last = vpaddq_u8(equal_bits(left + 32, right + 32), equal_bits(left + 48, right + 48));
    uint8x16_t all = vpaddq_u8(first, last);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(all, all)), 0);
}

#endif

#ifdef VECTOR

/* 64 bytes are compared at once, into a mask of those that are equal. Runs are measured by counting
 * the equal, or the different, bytes at the mask's lower end and shifting them out; what reaches the
 * end of a block goes on in the next one. */
int64_t VECTOR(xbzrle_encode)(const uint8_t *old_page, const uint8_t *new_page, uint8_t *out,
                              int64_t limit)
{
    int64_t length = 0, run = 0;
    int changed = 0;
    if (limit < 2)
        return -1;
    for (int64_t block = 0; block < PAGE_SIZE; block += 64) {
        uint64_t equal = equal_bytes(old_page + block, new_page + block);
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

int64_t VECTOR(xbzrle_encode_pages)(const uint8_t *old_memory, const uint8_t *new_memory,
                                    const int32_t *pages, int64_t count, uint8_t *out,
                                    int32_t *lengths)
{
    return encode_pages(VECTOR(xbzrle_encode), old_memory, new_memory, pages, count, out, lengths);
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
