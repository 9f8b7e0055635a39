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

static inline void stream_end(void)
{
}

#endif

void copy_nontemporal(uint8_t *to, const uint8_t *from, size_t bytes)
{
    size_t at = 0;
    for (; at + 256 <= bytes; at += 256)
        stream_chunk(to + at, from + at, from + at + PAGE);
    memcpy(to + at, from + at, bytes - at);
    stream_end();
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
