/*
 * Whether many files are there, with the permissions that they should have.
 *
 * Part of _files.c, which includes it once, after _writing.h.
 */

/* What `check_many` finds of a file. */
enum { AS_LISTED = 0, OTHERWISE = 1, UNKNOWN = 2 };

static char found_at(int folder, const char *name, mode_t mode)
{
    struct stat found;

    if (!is_name(name))
        return UNKNOWN;
    if (fstatat(folder, name, &found, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? OTHERWISE : UNKNOWN;
    return S_ISREG(found.st_mode) && (found.st_mode & 07777) == mode ? AS_LISTED : OTHERWISE;
}

static PyObject *py_check_many(PyObject *module, PyObject *arguments)
{
    PyObject *given[2], *names, *modes = NULL, *result = NULL;
    const char **texts = NULL;
    long *wanted = NULL;
    char *found = NULL;
    int folder;

    if (!PyArg_ParseTuple(arguments, "iOO:check_many", &folder, &given[0], &given[1]) ||
        (names = taken(given[0], MOST_KEYS)) == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_Size(names);
    modes = taken(given[1], MOST_KEYS);
    if (modes == NULL || !has_count(modes, count))
        goto end;
    texts = malloc(((size_t)count + 1) * sizeof *texts);
    wanted = malloc(((size_t)count + 1) * sizeof *wanted);
    found = malloc((size_t)count + 1);
    if (texts == NULL || wanted == NULL || found == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    if (!take_texts(names, texts) || !take_numbers(modes, 07777, wanted))
        goto end;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++)
        found[i] = found_at(folder, texts[i], (mode_t)wanted[i]);
    Py_END_ALLOW_THREADS
    result = PyBytes_FromStringAndSize(found, count);
end:
    free(texts);
    free(wanted);
    free(found);
    Py_DECREF(names);
    Py_XDECREF(modes);
    return result;
}
