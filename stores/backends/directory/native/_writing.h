/*
 * Write many short files under temporary names, and rename many.
 *
 * Part of _files.c, which includes it once. After a file that is not plain nothing of it is left, and no descriptor.
 */

/* Whether *name* is one part of a path, and leads neither up nor to where it is. */
static int is_part(const char *name, size_t length)
{
    return length > 0 && length <= NAME_MAX && memchr(name, '/', length) == NULL &&
           !(name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')));
}

static int is_name(const char *name)
{
    return name != NULL && is_part(name, strlen(name));
}

/*
 * Make the directories *path* in the open directory *above*, as `Root.make` does. Return a descriptor of the last one,
 * -1 if anything is odd. *is_new*: it was not there.
 */
static int make_folder(int above, const char *path, mode_t mode, int *is_new)
{
    int at = above;

    for (const char *end; path != NULL; path = *end ? end + 1 : NULL) {
        char name[NAME_MAX + 1];
        end = strchrnul(path, '/');
        size_t length = (size_t)(end - path);
        int made = -1;
        if (is_part(path, length)) {
            memcpy(name, path, length);
            name[length] = 0;
            *is_new = mkdirat(at, name, mode) == 0;
            if (*is_new || errno == EEXIST)
                made = openat(at, name, FOLDER);
        }
        if (at != above)
            close(at);
        if (made < 0)
            return -1;
        at = made;
    }
    return at;
}

/* The first part of a path, a shard, which is kept open for the next files of a call. *device* is that of *above*. */
typedef struct {
    int above, descriptor;
    dev_t device;
    const char *name;
    size_t length;
} open_part;

static void close_part(open_part *part)
{
    if (part->descriptor >= 0)
        close(part->descriptor);
    part->descriptor = -1;
}

/*
 * Open the first *length* bytes of *path* in the directory *above*, or make that directory: most are there. Return 0 if
 * anything is odd, as a directory of another file system, which a flush must know about.
 */
static int open_first(open_part *part, int above, const char *path, size_t length, mode_t mode)
{
    char name[NAME_MAX + 1];
    struct stat found;

    if (part->descriptor >= 0 && part->above == above && part->length == length && !memcmp(part->name, path, length))
        return 1;
    close_part(part);
    if (!is_part(path, length))
        return 0;
    if (part->above != above) {
        if (fstat(above, &found) != 0)
            return 0;
        part->device = found.st_dev;
    }
    memcpy(name, path, length);
    name[length] = 0;
    int descriptor = openat(above, name, FOLDER);
    if (descriptor >= 0) {
        if (fstat(descriptor, &found) != 0 || found.st_dev != part->device) {
            close(descriptor);
            return 0;
        }
    } else if (errno != ENOENT || mkdirat(above, name, mode) != 0 || (descriptor = openat(above, name, FOLDER)) < 0) {
        return 0;
    }
    part->above = above;
    part->descriptor = descriptor;
    part->name = path;
    part->length = length;
    return 1;
}

/* Whether a new file in *folder* gets the *mode* with which it is made. The umask of the process, or a default ACL of
 * the directory, may change it. */
typedef struct {
    int folder;
    mode_t mode;
    int is_given;
} known_mode;

/* Give the new *file*, which was made in *folder* with *mode*, exactly this mode. Return 0 for an error. */
static int settle_mode(int file, int folder, mode_t mode, known_mode *last)
{
    struct stat found;

    if (last->folder != folder || last->mode != mode) {
        if (fstat(file, &found) != 0)
            return 0;
        *last = (known_mode){folder, mode, (found.st_mode & 07777) == mode};
    }
    return last->is_given || fchmod(file, mode) == 0;
}

/*
 * Write *data* into a new file with *mode*. With *last*, which tells of the file before it in this call, the file gets
 * exactly this mode. Return 0 if anything is odd; then there is no file.
 */
static int write_file(int folder, const char *name, mode_t mode, const char *data, size_t length, known_mode *last)
{
    int file = openat(folder, name, CREATE, mode & 0777);

    if (file < 0)
        return 0;
    int is_whole = write(file, data, length) == (ssize_t)length;
    if (is_whole && last != NULL)
        is_whole = settle_mode(file, folder, mode, last);
    is_whole = close(file) == 0 && is_whole;
    if (!is_whole)
        unlinkat(folder, name, 0);
    return is_whole;
}

/* Fill *data* and *lengths* from a tuple of bytes, which owns them. */
static int take_data(PyObject *found, char **data, Py_ssize_t *lengths)
{
    for (Py_ssize_t i = 0; i < PyTuple_Size(found); i++)
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(found, i), &data[i], &lengths[i]) < 0)
            return 0;
    return 1;
}

/* Take *number* arguments as tuples of one length. Return that length, -1 for an error. */
static Py_ssize_t take_all(PyObject **given, int number, PyObject **found)
{
    for (int i = 0; i < number; i++) {
        found[i] = taken(given[i], MOST_FILES);
        if (found[i] == NULL || !has_count(found[i], PyTuple_Size(found[0])))
            return -1;
    }
    return PyTuple_Size(found[0]);
}

static void release(PyObject **found, int number)
{
    for (int i = 0; i < number; i++)
        Py_XDECREF(found[i]);
}

static PyObject *py_create_many(PyObject *module, PyObject *arguments)
{
    PyObject *given[4], *found[4] = {NULL}, *result = NULL;
    const char *folders[MOST_FILES], *names[MOST_FILES];
    char *data[MOST_FILES];
    Py_ssize_t lengths[MOST_FILES], done = 0;
    long above[MOST_FILES];
    int folder_mode, file_mode, made[MOST_FILES], is_new[MOST_FILES];
    open_part first = {.above = -1, .descriptor = -1};

    if (!PyArg_ParseTuple(arguments, "OOiOOi:create_many", &given[0], &given[1], &folder_mode, &given[2], &given[3],
                          &file_mode))
        return NULL;
    Py_ssize_t count = take_all(given, 4, found);
    if (count < 0 || !take_numbers(found[0], INT_MAX, above) || !take_texts(found[1], folders) ||
        !take_texts(found[2], names) || !take_data(found[3], data, lengths))
        goto end;
    /* Made before there are descriptors, so that none is lost without memory for them. */
    result = PyList_New(0);
    if (result == NULL)
        goto end;
    Py_BEGIN_ALLOW_THREADS
    for (; done < count; done++) {
        if (folders[done] == NULL || !is_name(names[done]))
            break;
        const char *path = folders[done], *rest = strchr(path, '/');
        int at = (int)above[done];
        if (rest != NULL) {
            if (!open_first(&first, at, path, (size_t)(rest - path), (mode_t)folder_mode))
                break;
            at = first.descriptor;
            path = rest + 1;
        }
        int folder = make_folder(at, path, (mode_t)folder_mode, &is_new[done]);
        if (folder < 0)
            break;
        if (!write_file(folder, names[done], (mode_t)file_mode, data[done], (size_t)lengths[done], NULL)) {
            close(folder);
            break;
        }
        made[done] = folder;
    }
    close_part(&first);
    Py_END_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < done; i++) {
        PyObject *one = result == NULL ? NULL : PyLong_FromLong(is_new[i] ? made[i] : ~made[i]);
        if (one == NULL || PyList_Append(result, one) < 0) {
            /* No memory: nobody will learn of the files. */
            Py_CLEAR(result);
            for (Py_ssize_t lost = 0; lost < done; lost++) {
                unlinkat(made[lost], names[lost], 0);
                close(made[lost]);
            }
            done = 0;
        }
        Py_XDECREF(one);
    }
end:
    release(found, 4);
    return result;
}

static PyObject *py_write_many(PyObject *module, PyObject *arguments)
{
    PyObject *given[4], *found[4] = {NULL}, *result = NULL;
    const char *names[MOST_FILES];
    char *data[MOST_FILES];
    Py_ssize_t lengths[MOST_FILES], done = 0;
    long folders[MOST_FILES], modes[MOST_FILES];
    known_mode last = {.folder = -1};

    if (!PyArg_ParseTuple(arguments, "OOOO:write_many", &given[0], &given[1], &given[2], &given[3]))
        return NULL;
    Py_ssize_t count = take_all(given, 4, found);
    if (count < 0 || !take_numbers(found[0], INT_MAX, folders) || !take_texts(found[1], names) ||
        !take_data(found[2], data, lengths) || !take_numbers(found[3], 07777, modes))
        goto end;
    Py_BEGIN_ALLOW_THREADS
    while (done < count && is_name(names[done]) &&
           write_file((int)folders[done], names[done], (mode_t)modes[done], data[done], (size_t)lengths[done], &last))
        done++;
    Py_END_ALLOW_THREADS
    result = PyLong_FromSsize_t(done);
end:
    release(found, 4);
    return result;
}

static PyObject *py_rename_many(PyObject *module, PyObject *arguments)
{
    PyObject *given[3], *found[3] = {NULL}, *result = NULL;
    const char *names[MOST_FILES], *new_names[MOST_FILES];
    Py_ssize_t done = 0;
    long folders[MOST_FILES];
    int is_closed;

    if (!PyArg_ParseTuple(arguments, "OOOp:rename_many", &given[0], &given[1], &given[2], &is_closed))
        return NULL;
    Py_ssize_t count = take_all(given, 3, found);
    if (count < 0 || !take_numbers(found[0], INT_MAX, folders) || !take_texts(found[1], names) ||
        !take_texts(found[2], new_names))
        goto end;
    Py_BEGIN_ALLOW_THREADS
    for (; done < count; done++) {
        int folder = (int)folders[done];
        if (!is_name(names[done]) || !is_name(new_names[done]) ||
            renameat(folder, names[done], folder, new_names[done]) != 0)
            break;
        if (is_closed)
            close(folder);
    }
    Py_END_ALLOW_THREADS
    result = PyLong_FromSsize_t(done);
end:
    release(found, 3);
    return result;
}
