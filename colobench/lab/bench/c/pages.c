/* Pages of memory in C: what the kernels of colobench/kernels/pages.py are measured against.
 *
 * A page is 4096 bytes. Bit i of word w of a bitmap is page 64 w + i. Memory that is written around
 * the cache must begin at a multiple of 64. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { PAGE = 4096 };

#ifdef __x86_64__

/* Copy 256 bytes around the cache, and fetch those that are a page ahead. */
static inline void stream_chunk(uint8_t *to, const uint8_t *from, const uint8_t *ahead)
{
    for (int at = 0; at < 256; at += 64)
        _mm_prefetch((const char *)ahead + at, _MM_HINT_T0);
#ifdef __AVX512F__
    __m512i line[4];
    for (int i = 0; i < 4; i++)
        line[i] = _mm512_loadu_si512(from + 64 * i);
    for (int i = 0; i < 4; i++)
        _mm512_stream_si512((void *)(to + 64 * i), line[i]);
#else
    for (int i = 0; i < 16; i++) {
        __m128i part = _mm_loadu_si128((const __m128i *)(from + 16 * i));
        _mm_stream_si128((__m128i *)(to + 16 * i), part);
    }
#endif
}

/* Copy a line of 64 bytes around the cache, and fetch the one that is next. */
static inline void stream_line(uint8_t *to, const uint8_t *from, const uint8_t *ahead)
{
    _mm_prefetch((const char *)ahead, _MM_HINT_T0);
#ifdef __AVX512F__
    _mm512_stream_si512((void *)to, _mm512_loadu_si512(from));
#else
    for (int i = 0; i < 4; i++) {
        __m128i part = _mm_loadu_si128((const __m128i *)(from + 16 * i));
        _mm_stream_si128((__m128i *)(to + 16 * i), part);
    }
#endif
}

/* Begin to fetch a line, and with it where its page lies in memory (the TLB's entry). */
static inline void touch(const uint8_t *at)
{
    _mm_prefetch((const char *)at, _MM_HINT_T0);
}

static inline void stream_end(void)
{
    _mm_sfence();
}

#else

static inline void stream_chunk(uint8_t *to, const uint8_t *from, const uint8_t *ahead)
{
    (void)ahead;
    memcpy(to, from, 256);
}

static inline void stream_line(uint8_t *to, const uint8_t *from, const uint8_t *ahead)
{
    (void)ahead;
    memcpy(to, from, 64);
}

static inline void touch(const uint8_t *at)
{
    (void)at;
}

static inline void stream_end(void)
{
}

#endif

static inline void copy_chunks(uint8_t *to, const uint8_t *from, size_t bytes, size_t ahead)
{
    size_t at = 0;
    for (; at + 256 <= bytes; at += 256)
        stream_chunk(to + at, from + at, from + at + ahead);
    memcpy(to + at, from + at, bytes - at);
    stream_end();
}

void copy_nontemporal(uint8_t *to, const uint8_t *from, size_t bytes)
{
    copy_chunks(to, from, bytes, 0);
}

/* The same with the help of prefetches: more than the CPU fetches ahead by itself. */
void copy_nontemporal_ahead(uint8_t *to, const uint8_t *from, size_t bytes)
{
    copy_chunks(to, from, bytes, PAGE);
}

void copy_memcpy(uint8_t *to, const uint8_t *from, size_t bytes)
{
    memcpy(to, from, bytes);
}

void flush_memcpy(uint8_t *ram, const uint8_t *cache, const int32_t *pages, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t at = (size_t)pages[i] * PAGE;
        memcpy(ram + at, cache + at, PAGE);
    }
}

/* Two pages far from each other at once, line by line: that keeps more of the memory busy. */
void flush_nontemporal(uint8_t *ram, const uint8_t *cache, const int32_t *pages, size_t count)
{
    size_t half = count / 2;
    for (size_t i = 0; i < half; i++) {
        size_t next = i + 1 < half ? i + 1 : i;
        size_t at = (size_t)pages[i] * PAGE, ahead = (size_t)pages[next] * PAGE;
        size_t at_2 = (size_t)pages[half + i] * PAGE, ahead_2 = (size_t)pages[half + next] * PAGE;
        touch(ram + ahead);
        touch(ram + ahead_2);
        for (size_t line = 0; line < PAGE; line += 64) {
            stream_line(ram + at + line, cache + at + line, cache + ahead + line);
            stream_line(ram + at_2 + line, cache + at_2 + line, cache + ahead_2 + line);
        }
    }
    if (count % 2) {
        size_t at = (size_t)pages[count - 1] * PAGE;
        memcpy(ram + at, cache + at, PAGE);
    }
    stream_end();
}

#ifdef __AVX2__

/* A few words that tell most pages with contents, then 128 bytes at a time. */
static int is_zero(const uint8_t *page)
{
    uint64_t head, tail, middle;
    memcpy(&head, page, 8);
    memcpy(&middle, page + PAGE / 2, 8);
    memcpy(&tail, page + PAGE - 8, 8);
    if (head | middle | tail)
        return 0;
    const __m256i *at = (const __m256i *)page, *end = (const __m256i *)(page + PAGE);
    for (; at < end; at += 4) {
        __m256i left = _mm256_or_si256(_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1));
        __m256i right = _mm256_or_si256(_mm256_loadu_si256(at + 2), _mm256_loadu_si256(at + 3));
        __m256i all = _mm256_or_si256(left, right);
        if (!_mm256_testz_si256(all, all))
            return 0;
    }
    return 1;
}

#else

static int is_zero(const uint8_t *page)
{
    for (int at = 0; at < PAGE; at += 64) {
        uint64_t words[8], seen = 0;
        memcpy(words, page + at, 64);
        for (int i = 0; i < 8; i++)
            seen |= words[i];
        if (seen)
            return 0;
    }
    return 1;
}

#endif

/* Give the bitmap a bit for each page that is all 0, and count them. */
size_t zero_pages(const uint8_t *memory, size_t pages, uint64_t *bitmap)
{
    size_t found = 0;
    memset(bitmap, 0, (pages + 63) / 64 * 8);
    for (size_t page = 0; page < pages; page++) {
        uint64_t zero = (uint64_t)is_zero(memory + page * PAGE);
        bitmap[page / 64] |= zero << page % 64;
        found += zero;
    }
    return found;
}

/* Set the bit of each page that differs, and count them. */
size_t different_pages(const uint8_t *memory, const uint8_t *other, size_t pages, uint64_t *bitmap)
{
    size_t found = 0;
    for (size_t page = 0; page < pages; page++) {
        uint64_t differs = memcmp(memory + page * PAGE, other + page * PAGE, PAGE) != 0;
        bitmap[page / 64] |= differs << page % 64;
        found += differs;
    }
    return found;
}
