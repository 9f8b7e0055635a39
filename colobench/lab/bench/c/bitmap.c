/* Dirty bitmaps in C: what the kernels of colobench/kernels/bitmap.py are measured against.
 *
 * Bit i of word w is page 64 w + i. Outputs need room for 64 entries more than there are pages:
 * entries behind the last one may be overwritten. */

#include <stddef.h>
#include <stdint.h>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

enum { STRETCH = 64, WORD_BITS = 64 };

/* Pages, one at a time: what any compiler makes of it for any CPU. */
size_t list_pages_plain(const uint64_t *bitmap, size_t words, int32_t *pages)
{
    size_t count = 0;
    for (size_t word = 0; word < words; word++) {
        for (uint64_t bits = bitmap[word]; bits; bits &= bits - 1)
            pages[count++] = (int32_t)(WORD_BITS * word + __builtin_ctzll(bits));
    }
    return count;
}

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VBMI2__)
#define LIST_WITH_AVX512

static inline int stretch_is_empty(const uint64_t *stretch)
{
    __m512i seen = _mm512_loadu_si512(stretch);
    for (int line = 1; line < 8; line++)
        seen = _mm512_or_si512(seen, _mm512_loadu_si512(stretch + 8 * line));
    return _mm512_test_epi64_mask(seen, seen) == 0;
}

/* One bit for each of the 64 words of a stretch that is not 0. */
static inline uint64_t words_in_use(const uint64_t *stretch)
{
    uint64_t used = 0;
    for (int line = 0; line < 8; line++) {
        __m512i words = _mm512_loadu_si512(stretch + 8 * line);
        used |= (uint64_t)_mm512_test_epi64_mask(words, words) << 8 * line;
    }
    return used;
}

/* The same for words with a bit that differs from the next lower one; reads stretch[-1] too. */
static inline uint64_t words_with_edges(const uint64_t *stretch)
{
    uint64_t used = 0;
    for (int line = 0; line < 8; line++) {
        __m512i words = _mm512_loadu_si512(stretch + 8 * line);
        __m512i below = _mm512_shldi_epi64(words, _mm512_loadu_si512(stretch + 8 * line - 1), 1);
        used |= (uint64_t)_mm512_cmpneq_epi64_mask(words, below) << 8 * line;
    }
    return used;
}

static const uint8_t numbers_of_bits[64] __attribute__((aligned(64))) = {
    0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
    22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
    44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

static inline void store_quarter(int32_t *pages, __m128i numbers, int32_t base)
{
    __m512i wide = _mm512_cvtepu8_epi32(numbers);
    _mm512_storeu_si512(pages, _mm512_add_epi32(wide, _mm512_set1_epi32(base)));
}

/* Store base + i for each bit i that is set: bytes are compressed, and widened in quarters. The
 * branches go the same way in all words of about one density. */
static inline size_t list_word(uint64_t bits, int32_t base, int32_t *pages)
{
    size_t found = (size_t)__builtin_popcountll(bits);
    __m512i numbers = _mm512_maskz_compress_epi8(bits, _mm512_load_si512(numbers_of_bits));
    store_quarter(pages, _mm512_castsi512_si128(numbers), base);
    if (found > 16) {
        store_quarter(pages + 16, _mm512_extracti32x4_epi32(numbers, 1), base);
        store_quarter(pages + 32, _mm512_extracti32x4_epi32(numbers, 2), base);
        if (found > 48)
            store_quarter(pages + 48, _mm512_extracti32x4_epi32(numbers, 3), base);
    }
    return found;
}

#elif defined(__AVX2__) && defined(__POPCNT__)

/* Below so many bits, one after the other is quicker than a table look-up for each byte. */
enum { FEW_BITS = 6 };

/* The numbers of the bits that are set in a byte, as bytes: 8 of each of 256. */
static uint64_t numbers_of_bits[256];

__attribute__((constructor)) static void fill_numbers_of_bits(void)
{
    for (int byte = 0; byte < 256; byte++) {
        int found = 0;
        for (int bit = 0; bit < 8; bit++) {
            if (byte >> bit & 1)
                numbers_of_bits[byte] |= (uint64_t)bit << 8 * found++;
        }
    }
}

static inline __m256i load_words(const uint64_t *words)
{
    return _mm256_loadu_si256((const __m256i *)words);
}

static inline int stretch_is_empty(const uint64_t *stretch)
{
    __m256i seen = load_words(stretch);
    for (int line = 1; line < 16; line++)
        seen = _mm256_or_si256(seen, load_words(stretch + 4 * line));
    return _mm256_testz_si256(seen, seen);
}

/* One bit for each of the 64 words of a stretch that is not the same as in the other one. */
static inline uint64_t lines_that_differ(const uint64_t *stretch, int line, __m256i other)
{
    __m256i same = _mm256_cmpeq_epi64(load_words(stretch + 4 * line), other);
    return (uint64_t)(~_mm256_movemask_pd(_mm256_castsi256_pd(same)) & 15) << 4 * line;
}

static inline uint64_t words_in_use(const uint64_t *stretch)
{
    uint64_t used = 0;
    for (int line = 0; line < 16; line++)
        used |= lines_that_differ(stretch, line, _mm256_setzero_si256());
    return used;
}

/* The same for words with a bit that differs from the next lower one; reads stretch[-1] too. */
static inline uint64_t words_with_edges(const uint64_t *stretch)
{
    uint64_t used = 0;
    for (int line = 0; line < 16; line++) {
        __m256i shifted = _mm256_slli_epi64(load_words(stretch + 4 * line), 1);
        __m256i carried = _mm256_srli_epi64(load_words(stretch + 4 * line - 1), 63);
        used |= lines_that_differ(stretch, line, _mm256_or_si256(shifted, carried));
    }
    return used;
}

/* Store base + i for each bit i that is set: the numbers of a byte's bits come from a table. */
static inline size_t list_word(uint64_t bits, int32_t base, int32_t *pages)
{
    size_t found = 0;
    if (__builtin_popcountll(bits) < FEW_BITS) {
        for (; bits; bits &= bits - 1)
            pages[found++] = base + __builtin_ctzll(bits);
        return found;
    }
    for (; bits; bits >>= 8, base += 8) {
        __m128i numbers = _mm_cvtsi64_si128((long long)numbers_of_bits[bits & 255]);
        __m256i wide = _mm256_add_epi32(_mm256_cvtepu8_epi32(numbers), _mm256_set1_epi32(base));
        _mm256_storeu_si256((__m256i *)(pages + found), wide);
        found += (size_t)__builtin_popcountll(bits & 255);
    }
    return found;
}

#else

static inline uint64_t words_with_edges(const uint64_t *stretch)
{
    uint64_t used = 0;
    for (int word = 0; word < STRETCH; word++) {
        uint64_t below = stretch[word] << 1 | stretch[word - 1] >> 63;
        used |= (uint64_t)(stretch[word] != below) << word;
    }
    return used;
}

static inline size_t list_word(uint64_t bits, int32_t base, int32_t *pages)
{
    size_t found = 0;
    for (; bits; bits &= bits - 1)
        pages[found++] = base + __builtin_ctzll(bits);
    return found;
}

#endif

#if defined(__AVX2__) && defined(__POPCNT__)

/* Pages of a bitmap: empty stretches are skipped, and words without a bit. */
static inline size_t list_stretches(const uint64_t *bitmap, size_t words, int32_t *pages)
{
    size_t count = 0, word = 0;
    for (; word + STRETCH <= words; word += STRETCH) {
        if (stretch_is_empty(bitmap + word))
            continue;
        for (uint64_t used = words_in_use(bitmap + word); used; used &= used - 1) {
            size_t at = word + (size_t)__builtin_ctzll(used);
            count += list_word(bitmap[at], (int32_t)(WORD_BITS * at), pages + count);
        }
    }
    for (; word < words; word++)
        count += list_word(bitmap[word], (int32_t)(WORD_BITS * word), pages + count);
    return count;
}

#ifdef LIST_WITH_AVX512
size_t list_pages_avx512(const uint64_t *bitmap, size_t words, int32_t *pages)
#else
size_t list_pages_avx2(const uint64_t *bitmap, size_t words, int32_t *pages)
#endif
{
    return list_stretches(bitmap, words, pages);
}

#endif

/* Runs start and stop where a bit differs from the next lower one. */
size_t list_runs(const uint64_t *bitmap, size_t words, int32_t *starts, int32_t *lengths)
{
    size_t started = 0, stopped = 0, step;
    for (size_t first = 0; first < words; first += step) {
        /* The first word has none before it; so the stretches begin at the second. */
        step = first == 0 ? 1 : words - first < STRETCH ? words - first : STRETCH;
        uint64_t used = step == STRETCH ? words_with_edges(bitmap + first) : ~0ull >> (64 - step);
        for (; used; used &= used - 1) {
            size_t word = first + (size_t)__builtin_ctzll(used);
            uint64_t bits = bitmap[word], below = bits << 1 | (word ? bitmap[word - 1] >> 63 : 0);
            int32_t base = (int32_t)(WORD_BITS * word);
            started += list_word(bits & ~below, base, starts + started);
            stopped += list_word(below & ~bits, base, lengths + stopped);
        }
    }
    if (stopped < started)
        lengths[stopped] = (int32_t)(WORD_BITS * words);
    for (size_t run = 0; run < started; run++)
        lengths[run] -= starts[run];
    return started;
}
