/*
 * The digests of many short pieces in one call: chunks of several pieces fill the lanes of the kernels.
 *
 * Part of _blake3.c, which includes it once.
 */

/* A piece of one chunk has no values: its chunk is its root. */
typedef struct {
    const uint8_t *data;
    size_t length;
    uint8_t *values;
    size_t count;
} piece;

/* Inputs that are hashed as soon as there is one for each lane. All have the same number of blocks and the same flags. */
typedef struct {
    const kernel *kernel;
    size_t blocks;
    uint32_t flags, first, last;
    size_t count;
    const uint8_t *inputs[MOST_LANES];
    uint64_t counters[MOST_LANES];
    uint8_t *outs[MOST_LANES];
} queue;

static void hash_queued(queue *queue)
{
    if (queue->count)
        queue->kernel->hash(queue->inputs, queue->counters, queue->count, queue->blocks, queue->flags, queue->first,
                            queue->last, queue->outs);
    queue->count = 0;
}

static void enqueue(queue *queue, const uint8_t *input, uint64_t counter, uint8_t *out)
{
    queue->inputs[queue->count] = input;
    queue->counters[queue->count] = counter;
    queue->outs[queue->count] = out;
    if (++queue->count == queue->kernel->lanes)
        hash_queued(queue);
}

/* Write the chaining values of all chunks of *pieces*, and the digests of pieces of one chunk. */
static void hash_chunks_of(const kernel *kernel, piece *pieces, size_t count, uint8_t *digests)
{
    queue chunks = {.kernel = kernel, .blocks = CHUNK / BLOCK, .first = CHUNK_START, .last = CHUNK_END};

    for (size_t i = 0; i < count; i++) {
        const piece *piece = &pieces[i];
        size_t whole = piece->length / CHUNK, rest = piece->length % CHUNK;
        if (piece->count == 0) {
            hash_chunk(piece->data, piece->length, 0, ROOT, digests + i * VALUE);
            continue;
        }
        for (size_t number = 0; number < whole; number++)
            enqueue(&chunks, piece->data + number * CHUNK, number, piece->values + number * VALUE);
        if (rest)
            hash_chunk(piece->data + whole * CHUNK, rest, whole, 0, piece->values + whole * VALUE);
    }
    hash_queued(&chunks);
}

/*
 * Replace the values of all pieces by their parents, as `merge` does, level by level until each has two left: the
 * children of its root. A pair is read before anything is written into it, because pairs are queued in their order.
 */
static void merge_pieces(const kernel *kernel, piece *pieces, size_t count, uint8_t *digests)
{
    queue parents = {.kernel = kernel, .blocks = 1, .flags = PARENT};
    queue roots = {.kernel = kernel, .blocks = 1, .flags = PARENT | ROOT};

    for (int is_left = 1; is_left;) {
        is_left = 0;
        for (size_t i = 0; i < count; i++)
            if (pieces[i].count > 2)
                for (size_t pair = 0; pair < pieces[i].count / 2; pair++)
                    enqueue(&parents, pieces[i].values + pair * BLOCK, 0, pieces[i].values + pair * VALUE);
        hash_queued(&parents);
        for (size_t i = 0; i < count; i++) {
            piece *piece = &pieces[i];
            size_t pairs = piece->count / 2;
            if (piece->count <= 2)
                continue;
            if (piece->count % 2)
                memmove(piece->values + pairs * VALUE, piece->values + (piece->count - 1) * VALUE, VALUE);
            piece->count = pairs + piece->count % 2;
            is_left |= piece->count > 2;
        }
    }
    for (size_t i = 0; i < count; i++)
        if (pieces[i].count)
            enqueue(&roots, pieces[i].values, 0, digests + i * VALUE);
    hash_queued(&roots);
}

/* Fill *pieces* from *objects*, of which those that are None are left out. Return their number of values, -1: error. */
static Py_ssize_t take_pieces(PyObject *objects, piece *pieces, size_t *taken)
{
    size_t values = 0;

    for (Py_ssize_t i = 0; i < PyTuple_Size(objects); i++) {
        PyObject *object = PyTuple_GetItem(objects, i);
        char *data;
        Py_ssize_t length;
        if (object == Py_None)
            continue;
        if (PyBytes_AsStringAndSize(object, &data, &length) < 0)
            return -1;
        size_t count = length <= CHUNK ? 0 : ((size_t)length + CHUNK - 1) / CHUNK;
        pieces[(*taken)++] = (piece){(const uint8_t *)data, (size_t)length, NULL, count};
        values += count;
    }
    return (Py_ssize_t)values;
}

static PyObject *in_hex(const uint8_t *digest)
{
    char text[2 * VALUE];

    for (int i = 0; i < VALUE; i++) {
        text[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    return PyUnicode_FromStringAndSize(text, sizeof text);
}

static PyObject *py_digests(PyObject *module, PyObject *arguments)
{
    PyObject *given, *objects = NULL, *result = NULL;
    int number = 0;
    piece *pieces = NULL;
    uint8_t *values = NULL, *digests = NULL;
    size_t count = 0, at = 0;

    if (!PyArg_ParseTuple(arguments, "O|i:digests", &given, &number))
        return NULL;
    const kernel *kernel = chosen(number);
    /* A tuple keeps its pieces, whatever other threads do with what was given. */
    if (kernel == NULL || (objects = PySequence_Tuple(given)) == NULL)
        return NULL;
    size_t wanted = (size_t)PyTuple_Size(objects);
    pieces = malloc((wanted + 1) * sizeof *pieces);
    digests = malloc((wanted + 1) * VALUE);
    if (pieces == NULL || digests == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    Py_ssize_t needed = take_pieces(objects, pieces, &count);
    if (needed < 0)
        goto end;
    values = malloc(((size_t)needed + 1) * VALUE);
    if (values == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    for (size_t i = 0; i < count; i++) {
        pieces[i].values = values + at * VALUE;
        at += pieces[i].count;
    }
    Py_BEGIN_ALLOW_THREADS
    hash_chunks_of(kernel, pieces, count, digests);
    merge_pieces(kernel, pieces, count, digests);
    Py_END_ALLOW_THREADS
    result = PyList_New((Py_ssize_t)wanted);
    for (size_t i = 0, taken = 0; result != NULL && i < wanted; i++) {
        PyObject *digest = PyTuple_GetItem(objects, (Py_ssize_t)i) == Py_None ? Py_NewRef(Py_None)
                                                                             : in_hex(digests + taken++ * VALUE);
        if (digest == NULL || PyList_SetItem(result, (Py_ssize_t)i, digest) < 0)
            Py_CLEAR(result);
    }
end:
    free(values);
    free(digests);
    free(pieces);
    Py_DECREF(objects);
    return result;
}
