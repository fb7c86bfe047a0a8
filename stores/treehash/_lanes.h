/*
 * The compression function of BLAKE3 on LANES inputs at the same time: one word of each input makes a vector.
 *
 * _blake3.c includes this file once for each kind of CPU, with these macros:
 *
 *   LANES             inputs at a time: 4, 8 or 16
 *   TARGET            attribute that allows instructions of this kind of CPU
 *   HASH_LANES        name of the function
 *   INTERLEAVE(h)     indices that interleave the first (h = 0) or second (h = 1) halves of two vectors
 *   ROTATE_BYTES(b)   optional: indices of bytes that rotate each word to the right by b bytes
 *
 * Vectors are those of GCC and Clang, so no intrinsics are needed. Everything is in one function, because a function
 * that takes vectors wider than the ABI's could not be inlined in all compilers.
 */

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define VECTOR JOIN(HASH_LANES, _words)
#define BYTES JOIN(HASH_LANES, _bytes)

typedef uint32_t VECTOR __attribute__((vector_size(LANES * 4)));
typedef uint8_t BYTES __attribute__((vector_size(LANES * 4)));

#define ROTATE(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
#ifdef ROTATE_BYTES
#define ROTATE_16(x) ((VECTOR)SHUFFLE(BYTES, (BYTES)(x), (BYTES)(x), ROTATE_BYTES(2)))
#define ROTATE_8(x) ((VECTOR)SHUFFLE(BYTES, (BYTES)(x), (BYTES)(x), ROTATE_BYTES(1)))
#else
#define ROTATE_16(x) ROTATE(x, 16)
#define ROTATE_8(x) ROTATE(x, 8)
#endif

#define QUARTER(a, b, c, d, x, y)         \
    s[a] += s[b] + m[x];                  \
    s[d] = ROTATE_16(s[d] ^ s[a]);        \
    s[c] += s[d];                         \
    s[b] = ROTATE(s[b] ^ s[c], 12);       \
    s[a] += s[b] + m[y];                  \
    s[d] = ROTATE_8(s[d] ^ s[a]);         \
    s[c] += s[d];                         \
    s[b] = ROTATE(s[b] ^ s[c], 7);

/*
 * Hash *count* <= LANES inputs of *blocks* whole blocks each, from one on. Input i begins at from[i] and has the counter
 * counters[i]; its chaining value goes to out[i]. The function reads all inputs before it writes, so the values may
 * replace the inputs.
 */
TARGET static void HASH_LANES(const uint8_t *const *from, const uint64_t *counters, size_t count, size_t blocks,
                              uint32_t flags, uint32_t first, uint32_t last, uint8_t *const *out)
{
    const uint8_t *inputs[LANES];
    uint32_t low[LANES], high[LANES], words[8][LANES];
    VECTOR h[8], m[16], s[16], counter_low, counter_high;

    for (size_t lane = 0; lane < LANES; lane++) {
        /* Lanes without an input hash the first one again. */
        size_t number = lane < count ? lane : 0;
        inputs[lane] = from[number];
        low[lane] = (uint32_t)counters[number];
        high[lane] = (uint32_t)(counters[number] >> 32);
    }
    memcpy(&counter_low, low, sizeof low);
    memcpy(&counter_high, high, sizeof high);
    for (int i = 0; i < 8; i++)
        h[i] = (VECTOR){0} + IV[i];

    for (size_t block = 0; block < blocks; block++) {
        uint32_t now = flags | (block == 0 ? first : 0) | (block + 1 == blocks ? last : 0);

        /* Load LANES words of each input, and transpose them: rotate the bits of (row, column) LOG times. */
        for (int part = 0; part < 16 / LANES; part++) {
            VECTOR rows[LANES], mixed[LANES];
            for (int lane = 0; lane < LANES; lane++) {
                memcpy(&rows[lane], inputs[lane] + block * 64 + part * LANES * 4, sizeof rows[lane]);
                __builtin_prefetch(inputs[lane] + block * 64 + AHEAD);
            }
            for (int pass = 1; pass < LANES; pass *= 2) {
                for (int i = 0; i < LANES / 2; i++) {
                    mixed[2 * i] = SHUFFLE(VECTOR, rows[i], rows[i + LANES / 2], INTERLEAVE(0));
                    mixed[2 * i + 1] = SHUFFLE(VECTOR, rows[i], rows[i + LANES / 2], INTERLEAVE(1));
                }
                for (int i = 0; i < LANES; i++)
                    rows[i] = mixed[i];
            }
            for (int i = 0; i < LANES; i++)
                m[part * LANES + i] = rows[i];
        }

        for (int i = 0; i < 8; i++)
            s[i] = h[i];
        for (int i = 0; i < 4; i++)
            s[8 + i] = (VECTOR){0} + IV[i];
        s[12] = counter_low;
        s[13] = counter_high;
        s[14] = (VECTOR){0} + 64u;
        s[15] = (VECTOR){0} + now;
        ROUNDS
        for (int i = 0; i < 8; i++)
            h[i] = s[i] ^ s[i + 8];
    }

    for (int i = 0; i < 8; i++)
        memcpy(words[i], &h[i], sizeof h[i]);
    for (size_t lane = 0; lane < count; lane++) {
        uint32_t value[8];
        for (int i = 0; i < 8; i++)
            value[i] = words[i][lane];
        memcpy(out[lane], value, sizeof value);
    }
}

#undef JOIN_
#undef JOIN
#undef VECTOR
#undef BYTES
#undef ROTATE
#undef ROTATE_16
#undef ROTATE_8
#undef QUARTER
#undef LANES
#undef TARGET
#undef HASH_LANES
#undef INTERLEAVE
#undef ROTATE_BYTES
