/*
 * BLAKE3's tree, compiled: the functions of reference.py, several chunks at a time.
 *
 * Written from the paper (https://github.com/BLAKE3-team/BLAKE3-specs). It needs GCC or Clang, and uses Python's stable
 * ABI, so one file serves Python 3.11 and all later versions. hatch_build.py compiles it.
 */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "words are read as they are in memory, so this needs a little-endian CPU"
#endif

#define CHUNK 1024
#define BLOCK 64
#define VALUE 32
#define MOST_LANES 16
/* Chunks whose chaining values are merged before the next ones are hashed: their values stay in the first cache. */
#define GROUP 256

enum { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8 };

static const uint32_t IV[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                               0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};

/* Columns, then diagonals. The arguments are the words of the message, in the order of this round. */
#define ROUND(m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15) \
    QUARTER(0, 4, 8, 12, m0, m1)                                                    \
    QUARTER(1, 5, 9, 13, m2, m3)                                                    \
    QUARTER(2, 6, 10, 14, m4, m5)                                                   \
    QUARTER(3, 7, 11, 15, m6, m7)                                                   \
    QUARTER(0, 5, 10, 15, m8, m9)                                                   \
    QUARTER(1, 6, 11, 12, m10, m11)                                                 \
    QUARTER(2, 7, 8, 13, m12, m13)                                                  \
    QUARTER(3, 4, 9, 14, m14, m15)

/* Each line is the line above it, permuted once more. */
#define ROUNDS                                                    \
    ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)   \
    ROUND(2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)   \
    ROUND(3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1)   \
    ROUND(10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6)   \
    ROUND(12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4)   \
    ROUND(9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7)   \
    ROUND(11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13)

/* One block of one input. */
#define ROTATE_RIGHT(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
#define QUARTER(a, b, c, d, x, y)               \
    s[a] += s[b] + m[x];                        \
    s[d] = ROTATE_RIGHT(s[d] ^ s[a], 16);       \
    s[c] += s[d];                               \
    s[b] = ROTATE_RIGHT(s[b] ^ s[c], 12);       \
    s[a] += s[b] + m[y];                        \
    s[d] = ROTATE_RIGHT(s[d] ^ s[a], 8);        \
    s[c] += s[d];                               \
    s[b] = ROTATE_RIGHT(s[b] ^ s[c], 7);

static void compress(uint32_t h[8], const uint8_t block[BLOCK], uint64_t counter, uint32_t length, uint32_t flags)
{
    uint32_t m[16], s[16];

    memcpy(m, block, BLOCK);
    memcpy(s, h, 32);
    memcpy(s + 8, IV, 16);
    s[12] = (uint32_t)counter;
    s[13] = (uint32_t)(counter >> 32);
    s[14] = length;
    s[15] = flags;
    ROUNDS
    for (int i = 0; i < 8; i++)
        h[i] = s[i] ^ s[i + 8];
}
#undef QUARTER

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(type, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(type, a, b, ...) __builtin_shuffle(a, b, (type){__VA_ARGS__})
#endif

/* How far ahead of what is hashed each input is fetched into the cache. */
#define AHEAD 256

#define LANES 4
#define TARGET
#define HASH_LANES hash_4
#define INTERLEAVE(h) 0 + 2 * h, 4 + 2 * h, 1 + 2 * h, 5 + 2 * h
#include "_lanes.h"

#if defined(__x86_64__)
#define LANES 8
#define TARGET __attribute__((target("avx2")))
#define HASH_LANES hash_8
#define INTERLEAVE(h) 0 + 4 * h, 8 + 4 * h, 1 + 4 * h, 9 + 4 * h, 2 + 4 * h, 10 + 4 * h, 3 + 4 * h, 11 + 4 * h
#define ROTATED(at, b) at + b % 4, at + (1 + b) % 4, at + (2 + b) % 4, at + (3 + b) % 4
#define ROTATE_BYTES(b)                                                                                     \
    ROTATED(0, b), ROTATED(4, b), ROTATED(8, b), ROTATED(12, b), ROTATED(16, b), ROTATED(20, b), ROTATED(24, b), \
        ROTATED(28, b)
#include "_lanes.h"

#define LANES 16
#define TARGET __attribute__((target("avx512f")))
#define HASH_LANES hash_16
#define INTERLEAVE(h)                                                                                   \
    0 + 8 * h, 16 + 8 * h, 1 + 8 * h, 17 + 8 * h, 2 + 8 * h, 18 + 8 * h, 3 + 8 * h, 19 + 8 * h, 4 + 8 * h, \
        20 + 8 * h, 5 + 8 * h, 21 + 8 * h, 6 + 8 * h, 22 + 8 * h, 7 + 8 * h, 23 + 8 * h
#include "_lanes.h"
#endif

typedef void (*hash_lanes)(const uint8_t *const *, const uint64_t *, size_t, size_t, uint32_t, uint32_t, uint32_t,
                           uint8_t *const *);

typedef struct {
    const char *name;
    size_t lanes;
    hash_lanes hash;
} kernel;

/* What this CPU can run, the fastest first. Set once, when the module is loaded. */
static kernel kernels[3];
static int kernel_count;

static void find_kernels(void)
{
    kernel_count = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        kernels[kernel_count++] = (kernel){"avx512", 16, hash_16};
    if (__builtin_cpu_supports("avx2"))
        kernels[kernel_count++] = (kernel){"avx2", 8, hash_8};
#endif
    kernels[kernel_count++] = (kernel){"portable", 4, hash_4};
}

/*
 * The chaining value of the last chunk of an object, which may have any length up to 1024; 0 is the empty object. With
 * *root*, it is the only chunk, and the value is the digest.
 */
static void hash_chunk(const uint8_t *data, size_t length, uint64_t counter, uint32_t root, uint8_t *out)
{
    uint32_t h[8];
    uint32_t flags = CHUNK_START;

    memcpy(h, IV, sizeof h);
    for (; length > BLOCK; data += BLOCK, length -= BLOCK, flags = 0)
        compress(h, data, counter, BLOCK, flags);
    uint8_t block[BLOCK] = {0};
    if (length)
        memcpy(block, data, length);
    compress(h, block, counter, (uint32_t)length, flags | CHUNK_END | root);
    memcpy(out, h, VALUE);
}

/* Hash *count* inputs that lie *stride* bytes apart, with counters *step* apart. Their values go to *out*, in a row. */
static void hash_row(const kernel *kernel, const uint8_t *input, size_t stride, size_t count, size_t blocks,
                     uint64_t counter, uint64_t step, uint32_t flags, uint32_t first, uint32_t last, uint8_t *out)
{
    const uint8_t *inputs[MOST_LANES];
    uint64_t counters[MOST_LANES];
    uint8_t *outs[MOST_LANES];

    for (size_t i = 0; i < count; i++) {
        inputs[i] = input + i * stride;
        counters[i] = counter + i * step;
        outs[i] = out + i * VALUE;
    }
    kernel->hash(inputs, counters, count, blocks, flags, first, last, outs);
}

/* Write the chaining values of the chunks of *data*, and return how many there are. */
static size_t hash_chunks(const kernel *kernel, const uint8_t *data, size_t length, uint64_t counter, uint8_t *out)
{
    size_t whole = length / CHUNK, done = 0;

    while (whole - done > 1) {
        size_t count = whole - done < kernel->lanes ? whole - done : kernel->lanes;
        hash_row(kernel, data + done * CHUNK, CHUNK, count, CHUNK / BLOCK, counter + done, 1, 0, CHUNK_START, CHUNK_END,
                 out + done * VALUE);
        done += count;
    }
    for (; done * CHUNK < length; done++) {
        size_t rest = length - done * CHUNK;
        hash_chunk(data + done * CHUNK, rest < CHUNK ? rest : CHUNK, counter + done, 0, out + done * VALUE);
    }
    return done;
}

/*
 * Replace *count* chaining values by their parents, level by level, until at most *wanted* are left; return how many.
 * A last value without a neighbour moves up as it is. So each left subtree is the largest power of two that leaves
 * something to the right one.
 */
static size_t merge(const kernel *kernel, uint8_t *values, size_t count, size_t wanted)
{
    while (count > wanted) {
        size_t pairs = count / 2, done = 0;
        while (done < pairs) {
            size_t now = pairs - done < kernel->lanes ? pairs - done : kernel->lanes;
            if (now == 1) {
                uint32_t h[8];
                memcpy(h, IV, sizeof h);
                compress(h, values + done * BLOCK, 0, BLOCK, PARENT);
                memcpy(values + done * VALUE, h, VALUE);
            } else {
                hash_row(kernel, values + done * BLOCK, BLOCK, now, 1, 0, 0, PARENT, 0, 0, values + done * VALUE);
            }
            done += now;
        }
        if (count % 2)
            memmove(values + pairs * VALUE, values + (count - 1) * VALUE, VALUE);
        count = pairs + count % 2;
    }
    return count;
}

/* Write the chaining value of a subtree. *groups* has room for one value of each GROUP chunks. */
static void hash_subtree(const kernel *kernel, const uint8_t *data, size_t length, uint64_t counter, uint8_t *groups,
                         uint8_t *out)
{
    uint8_t values[GROUP * VALUE];
    size_t number = 0;

    for (size_t at = 0; at < length; at += GROUP * CHUNK, number++) {
        size_t now = length - at < GROUP * CHUNK ? length - at : GROUP * CHUNK;
        size_t chunks = hash_chunks(kernel, data + at, now, counter + at / CHUNK, values);
        merge(kernel, values, chunks, 1);
        memcpy(groups + number * VALUE, values, VALUE);
    }
    merge(kernel, groups, number, 1);
    memcpy(out, groups, VALUE);
}

static const kernel *chosen(int number)
{
    if (number < 0 || number >= kernel_count) {
        PyErr_Format(PyExc_ValueError, "there are %d kernels, so there is no number %d", kernel_count, number);
        return NULL;
    }
    return &kernels[number];
}

static PyObject *py_chaining_value(PyObject *module, PyObject *arguments)
{
    Py_buffer data;
    unsigned long long counter;
    int number = 0;
    uint8_t out[VALUE], *groups = NULL;
    PyObject *result = NULL;

    if (!PyArg_ParseTuple(arguments, "y*K|i:chaining_value", &data, &counter, &number))
        return NULL;
    const kernel *kernel = chosen(number);
    size_t length = (size_t)data.len;
    if (kernel == NULL)
        goto end;
    if (length == 0) {
        PyErr_SetString(PyExc_ValueError, "a range must have at least 1 byte");
        goto end;
    }
    groups = malloc((length / (GROUP * CHUNK) + 1) * VALUE);
    if (groups == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    Py_BEGIN_ALLOW_THREADS
    hash_subtree(kernel, data.buf, length, counter, groups, out);
    Py_END_ALLOW_THREADS
    result = PyBytes_FromStringAndSize((const char *)out, VALUE);
end:
    free(groups);
    PyBuffer_Release(&data);
    return result;
}

static PyObject *py_merged(PyObject *module, PyObject *arguments)
{
    Py_buffer data;
    int number = 0;
    uint32_t h[8];
    uint8_t *values = NULL;
    PyObject *result = NULL;

    if (!PyArg_ParseTuple(arguments, "y*|i:merged", &data, &number))
        return NULL;
    const kernel *kernel = chosen(number);
    size_t length = (size_t)data.len;
    if (kernel == NULL)
        goto end;
    if (length < 2 * VALUE || length % VALUE) {
        PyErr_SetString(PyExc_ValueError, "there must be at least 2 chaining values of 32 bytes");
        goto end;
    }
    values = malloc(length);
    if (values == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    Py_BEGIN_ALLOW_THREADS
    memcpy(values, data.buf, length);
    merge(kernel, values, length / VALUE, 2);
    memcpy(h, IV, sizeof h);
    compress(h, values, 0, BLOCK, PARENT | ROOT);
    Py_END_ALLOW_THREADS
    result = PyBytes_FromStringAndSize((const char *)h, VALUE);
end:
    free(values);
    PyBuffer_Release(&data);
    return result;
}

#include "_pieces.h"

static int execute(PyObject *module)
{
    find_kernels();
    PyObject *names = PyTuple_New(kernel_count);
    if (names == NULL)
        return -1;
    for (int i = 0; i < kernel_count; i++) {
        PyObject *name = PyUnicode_FromString(kernels[i].name);
        if (name == NULL || PyTuple_SetItem(names, i, name) < 0) {
            Py_DECREF(names);
            return -1;
        }
    }
    int failed = PyModule_AddObjectRef(module, "KERNELS", names);
    Py_DECREF(names);
    return failed;
}

static PyMethodDef methods[] = {
    {"chaining_value", py_chaining_value, METH_VARARGS,
     "chaining_value(data, first_chunk, kernel=0)\n\nReturn the chaining value of a subtree."},
    {"merged", py_merged, METH_VARARGS,
     "merged(values, kernel=0)\n\nReturn the root digest over two or more subtrees, whose values are concatenated."},
    {"digests", py_digests, METH_VARARGS,
     "digests(pieces, kernel=0)\n\nReturn the digest of each piece of bytes in hex digits, and None for None."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_blake3",
    .m_doc = "BLAKE3's tree, compiled. KERNELS names what this CPU can run, the fastest first.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__blake3(void)
{
    return PyModuleDef_Init(&definition);
}
