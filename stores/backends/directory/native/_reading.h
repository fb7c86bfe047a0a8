/*
 * Read many short files, and ask for the lengths of many.
 *
 * Part of _files.c, which includes it once.
 */

/* As in sizes.py. */
enum { ABSENT = -1, NO_FILE = -2, ASK = -3 };

static int is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/*
 * Where a file is read to: into the bytes that are returned if it has *room* bytes, as expected. One byte more tells that
 * it is longer.
 */
typedef struct {
    const char *path;
    PyObject *data;
    char *start;
    size_t room;
    char more;
    ssize_t length;
} reading;

static ssize_t read_up_to(int file, reading *to, size_t most)
{
    size_t first = most < to->room ? most : to->room;
    struct iovec places[2] = {{to->start, first}, {&to->more, most - first}};

    return preadv(file, places, 2, 0);
}

/* As `read_beneath`, for one byte more than there is room. Return how many bytes were read, -1 for None. */
static ssize_t read_first(int directory, reading *to)
{
    int file = open_beneath(directory, to->path, READ);

    if (file < 0)
        return -1;
    ssize_t length = read_up_to(file, to, to->room + 1);
    close(file);
    return length;
}

/* As `read_still`. Return how many bytes were read, -1 for None. */
static ssize_t read_whole(int directory, reading *to)
{
    struct stat begun, ended;
    ssize_t length = -1;
    int file = open_beneath(directory, to->path, READ);

    if (file < 0)
        return -1;
    if (fstat(file, &begun) == 0 && S_ISREG(begun.st_mode) && (uint64_t)begun.st_size <= to->room) {
        length = read_up_to(file, to, (size_t)begun.st_size + 1);
        if (length != begun.st_size || fstat(file, &ended) != 0 || !is_same(&begun, &ended))
            length = -1;
    }
    close(file);
    return length;
}

/* Return the bytes that were read, or None. */
static PyObject *what_was_read(reading *from)
{
    if (from->length < 0)
        return Py_NewRef(Py_None);
    if ((size_t)from->length == from->room)
        return Py_NewRef(from->data);
    if ((size_t)from->length < from->room)
        return PyBytes_FromStringAndSize(from->start, from->length);
    PyObject *longer = PyBytes_FromStringAndSize(NULL, from->length);
    if (longer != NULL) {
        memcpy(PyBytes_AsString(longer), from->start, from->room);
        PyBytes_AsString(longer)[from->room] = from->more;
    }
    return longer;
}

static PyObject *py_read_many(PyObject *module, PyObject *arguments)
{
    PyObject *given[2], *paths, *sizes = NULL, *result = NULL;
    reading files[MOST_FILES] = {{0}};
    const char *texts[MOST_FILES];
    long rooms[MOST_FILES];
    int directory, is_still;

    if (!PyArg_ParseTuple(arguments, "iOOp:read_many", &directory, &given[0], &given[1], &is_still))
        return NULL;
    paths = taken(given[0], MOST_FILES);
    if (paths == NULL || (sizes = taken(given[1], MOST_FILES)) == NULL)
        goto end;
    Py_ssize_t count = PyTuple_Size(paths);
    if (!has_count(sizes, count) || !take_texts(paths, texts) || !take_numbers(sizes, MOST_BYTES, rooms))
        goto end;
    for (Py_ssize_t i = 0; i < count; i++) {
        files[i] = (reading){.path = texts[i], .room = (size_t)rooms[i]};
        files[i].data = PyBytes_FromStringAndSize(NULL, rooms[i]);
        if (files[i].data == NULL)
            goto end;
        files[i].start = PyBytes_AsString(files[i].data);
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        if (files[i].path == NULL)
            files[i].length = -1;
        else
            files[i].length = is_still ? read_whole(directory, &files[i]) : read_first(directory, &files[i]);
    }
    Py_END_ALLOW_THREADS
    result = PyList_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyObject *data = what_was_read(&files[i]);
        if (data == NULL || PyList_SetItem(result, i, data) < 0)
            Py_CLEAR(result);
    }
end:
    for (int i = 0; i < MOST_FILES; i++)
        Py_XDECREF(files[i].data);
    Py_XDECREF(paths);
    Py_XDECREF(sizes);
    return result;
}

/* Return the length of the first-level shard of a key with the slash at its end, 0 if the key has none. */
static size_t shard_of(const char *key)
{
    const char *first = strchr(key, '/');
    const char *second = first == NULL ? NULL : strchr(first + 1, '/');

    return second == NULL ? 0 : (size_t)(second + 1 - key);
}

static int64_t length_of(int directory, const char *path)
{
    struct stat found;
    int file = open_beneath(directory, path, LOOK);

    if (file < 0)
        return errno == ENOENT ? ABSENT : ASK;
    int64_t length = fstat(file, &found) != 0 ? ASK : S_ISREG(found.st_mode) ? found.st_size : NO_FILE;
    close(file);
    return length;
}

/* Open the shard that is the first *length* bytes of *key*. Return the descriptor, ABSENT, or ASK. */
static int open_shard(int root, const char *key, size_t length)
{
    char path[256];

    if (length > sizeof path)
        return ASK;
    memcpy(path, key, length - 1);
    path[length - 1] = 0;
    int shard = open_beneath(root, path, FOLDER);
    return shard >= 0 ? shard : errno == ENOENT ? ABSENT : ASK;
}

/* As `_ask` in sizes.py: a shard is opened for two or more of its keys in a row. */
static void find_lengths(int root, const char **keys, Py_ssize_t count, int64_t *lengths)
{
    const char *of = NULL;
    size_t prefix = 0;
    int shard = root;

    for (Py_ssize_t i = 0; i < count; i++) {
        if (keys[i] == NULL) {
            lengths[i] = ASK;
            continue;
        }
        if (prefix == 0 || strncmp(keys[i], of, prefix) != 0) {
            if (shard >= 0 && shard != root)
                close(shard);
            shard = root;
            of = keys[i];
            prefix = shard_of(of);
            if (i + 1 == count || keys[i + 1] == NULL || strncmp(keys[i + 1], of, prefix) != 0)
                prefix = 0;
            if (prefix)
                shard = open_shard(root, of, prefix);
        }
        lengths[i] = shard >= 0 ? length_of(shard, keys[i] + prefix) : shard;
    }
    if (shard >= 0 && shard != root)
        close(shard);
}

static PyObject *py_lengths(PyObject *module, PyObject *arguments)
{
    PyObject *given, *keys, *result = NULL;
    const char **texts = NULL;
    int64_t *found = NULL;
    int root;

    if (!PyArg_ParseTuple(arguments, "iO:lengths", &root, &given) || (keys = taken(given, MOST_KEYS)) == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_Size(keys);
    texts = malloc(((size_t)count + 1) * sizeof *texts);
    found = malloc(((size_t)count + 1) * sizeof *found);
    if (texts == NULL || found == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    if (!take_texts(keys, texts))
        goto end;
    Py_BEGIN_ALLOW_THREADS
    find_lengths(root, texts, count, found);
    Py_END_ALLOW_THREADS
    result = PyBytes_FromStringAndSize((const char *)found, count * (Py_ssize_t)sizeof *found);
end:
    free(texts);
    free(found);
    Py_DECREF(keys);
    return result;
}
