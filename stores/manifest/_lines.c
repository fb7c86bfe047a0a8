/*
 * The plain lines of a manifest, many in one call.
 *
 * Nothing is decided here. A piece with a line that is not plain is left to the Python code, which gives the error.
 * lines.py says what is plain, in Python. It uses Python's stable ABI. hatch_build.py compiles it.
 */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#define DIGITS 64
#define DIGEST_BYTES (DIGITS / 2)
#define RECORD_BYTES (DIGEST_BYTES + 8)
/* A SIZE with up to this many digits fits 64 bits. */
#define MOST_SIZE_DIGITS 19

typedef struct {
    const char *at;
    size_t length;
} field;

typedef struct {
    field kind, permissions, checksum, size, path;
} fields;

/* The lines of *text* that are left. *last* is the PATH of the line before, *owner* what holds it. */
typedef struct {
    const char *at, *end;
    field last;
    PyObject *owner;
} lines;

/* Return the value of a lowercase hex digit, 16 for anything else. */
static unsigned value_of(char digit)
{
    if (digit >= '0' && digit <= '9')
        return (unsigned)(digit - '0');
    return digit >= 'a' && digit <= 'f' ? (unsigned)(digit - 'a' + 10) : 16;
}

/* Return whether there are 64 hex digits at *text*. Put what they say into *digest*. */
static int read_digest(const char *text, unsigned char *digest)
{
    unsigned wrong = 0;

    for (int i = 0; i < DIGEST_BYTES; i++) {
        unsigned high = value_of(text[2 * i]), low = value_of(text[2 * i + 1]);
        wrong |= high | low;
        digest[i] = (unsigned char)(high << 4 | low);
    }
    return wrong < 16;
}

static int is_sorted(const field *before, const field *path)
{
    size_t common = before->length < path->length ? before->length : path->length;
    int order = memcmp(before->at, path->at, common);

    return order < 0 || (order == 0 && before->length <= path->length);
}

/* Read the next line if it is plain, but for its UTF-8. */
static int read_line(lines *from, fields *found, unsigned char *digest)
{
    const char *at = from->at, *end = memchr(at, '\n', (size_t)(from->end - at));

    if (end == NULL || end - at < 2 || (at[0] != 'F' && at[0] != 'D') || at[1] != ' ')
        return 0;
    found->kind = (field){at, 1};
    at += 2;
    const char *space = memchr(at, ' ', (size_t)(end - at));
    if (space == NULL || space == at || end - space < 1 + DIGITS + 1 || space[1 + DIGITS] != ' ')
        return 0;
    found->permissions = (field){at, (size_t)(space - at)};
    found->checksum = (field){space + 1, DIGITS};
    if (!read_digest(space + 1, digest))
        return 0;
    at = space + 1 + DIGITS + 1;
    const char *first = at;
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    found->size = (field){first, (size_t)(at - first)};
    if (found->size.length == 0 || found->size.length > MOST_SIZE_DIGITS || (*first == '0' && found->size.length > 1))
        return 0;
    if (end - at < 2 || *at != ' ')
        return 0;
    found->path = (field){at + 1, (size_t)(end - at - 1)};
    if (!is_sorted(&from->last, &found->path))
        return 0;
    from->last = found->path;
    from->at = end + 1;
    return 1;
}

static PyObject *text_of(const field *from)
{
    return PyUnicode_DecodeUTF8(from->at, (Py_ssize_t)from->length, "strict");
}

/* Put the text into a column. It is that of *before*, if that has the same bytes. */
static int put(PyObject *column, Py_ssize_t at, const field *from, const field *before)
{
    PyObject *text;

    if (before != NULL && at > 0 && before->length == from->length && !memcmp(before->at, from->at, from->length))
        text = Py_NewRef(PyTuple_GetItem(column, at - 1));
    else if ((text = text_of(from)) == NULL)
        return 0;
    return PyTuple_SetItem(column, at, text) == 0;
}

/* Return None instead of an error that only says that a text is not UTF-8. */
static PyObject *not_plain(void)
{
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeError))
            return NULL;
        PyErr_Clear();
    }
    Py_RETURN_NONE;
}

/* Return how many lines there are, 0 if the last one has no end, -1 for an error. */
static Py_ssize_t begin(PyObject *piece, PyObject *last, lines *from)
{
    char *text;
    Py_ssize_t length, count = 0;

    if (PyBytes_AsStringAndSize(piece, &text, &length) < 0)
        return -1;
    from->owner = PyUnicode_AsUTF8String(last);
    if (from->owner == NULL)
        return -1;
    from->at = text;
    from->end = text + length;
    from->last = (field){PyBytes_AsString(from->owner), (size_t)PyBytes_Size(from->owner)};
    if (length == 0 || text[length - 1] != '\n')
        return 0;
    for (const char *at = text; (at = memchr(at, '\n', (size_t)(from->end - at))) != NULL; at++)
        count++;
    return count;
}

static PyObject *py_columns(PyObject *module, PyObject *arguments)
{
    PyObject *piece, *last, *columns[5] = {NULL}, *result = NULL;
    lines from = {0};
    fields found, before;
    unsigned char digest[DIGEST_BYTES];

    if (!PyArg_ParseTuple(arguments, "SU:columns", &piece, &last))
        return NULL;
    Py_ssize_t count = begin(piece, last, &from);
    if (count <= 0) {
        result = not_plain();
        goto end;
    }
    for (int i = 0; i < 5; i++)
        if ((columns[i] = PyTuple_New(count)) == NULL)
            goto end;
    for (Py_ssize_t at = 0; at < count; at++) {
        if (!read_line(&from, &found, digest) || !put(columns[0], at, &found.kind, &before.kind) ||
            !put(columns[1], at, &found.permissions, &before.permissions) ||
            !put(columns[2], at, &found.checksum, NULL) || !put(columns[3], at, &found.size, &before.size) ||
            !put(columns[4], at, &found.path, NULL)) {
            result = not_plain();
            goto end;
        }
        before = found;
    }
    result = PyTuple_Pack(5, columns[0], columns[1], columns[2], columns[3], columns[4]);
end:
    for (int i = 0; i < 5; i++)
        Py_XDECREF(columns[i]);
    Py_XDECREF(from.owner);
    return result;
}

static int is_utf8(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] >= 0x80) {
            PyObject *decoded = PyUnicode_DecodeUTF8(text, (Py_ssize_t)length, "strict");
            Py_XDECREF(decoded);
            return decoded != NULL;
        }
    return 1;
}

/* As eight bytes, the highest first, so that records are in the order of their sizes. */
static void put_size(const field *size, uint64_t largest, unsigned char *to)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < size->length; i++)
        bytes = bytes * 10 + (uint64_t)(size->at[i] - '0');
    if (bytes > largest)
        bytes = largest;
    for (int i = 0; i < 8; i++)
        to[i] = (unsigned char)(bytes >> (56 - 8 * i));
}

static PyObject *py_records(PyObject *module, PyObject *arguments)
{
    PyObject *piece, *last, *records = NULL, *path = NULL, *result = NULL;
    lines from = {0};
    fields found;
    unsigned char digest[DIGEST_BYTES];
    unsigned long long largest;
    Py_ssize_t files = 0;
    int with_sizes;

    if (!PyArg_ParseTuple(arguments, "SUKp:records", &piece, &last, &largest, &with_sizes))
        return NULL;
    size_t unit = with_sizes ? RECORD_BYTES : DIGEST_BYTES;
    Py_ssize_t count = begin(piece, last, &from);
    if (count <= 0 || !is_utf8(from.at, (size_t)(from.end - from.at))) {
        result = not_plain();
        goto end;
    }
    if ((records = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)unit)) == NULL)
        goto end;
    unsigned char *to = (unsigned char *)PyBytes_AsString(records);
    for (Py_ssize_t at = 0; at < count; at++) {
        if (!read_line(&from, &found, digest)) {
            result = not_plain();
            goto end;
        }
        if (*found.kind.at == 'F') {
            memcpy(to, digest, DIGEST_BYTES);
            if (with_sizes)
                put_size(&found.size, largest, to + DIGEST_BYTES);
            to += unit;
            files++;
        }
    }
    if ((path = text_of(&from.last)) == NULL)
        goto end;
    PyObject *whole = files == count
                          ? Py_NewRef(records)
                          : PyBytes_FromStringAndSize(PyBytes_AsString(records), files * (Py_ssize_t)unit);
    if (whole != NULL)
        result = PyTuple_Pack(2, whole, path);
    Py_XDECREF(whole);
end:
    Py_XDECREF(path);
    Py_XDECREF(records);
    Py_XDECREF(from.owner);
    return result;
}

static PyMethodDef methods[] = {
    {"columns", py_columns, METH_VARARGS,
     "columns(piece, last)\n\nReturn the fields of the lines of *piece*, a tuple each: TYPE, PERMISSIONS, CHECKSUM, SIZE,"
     " PATH. None if a line is not plain, or not in order after the PATH *last*."},
    {"records", py_records, METH_VARARGS,
     "records(piece, last, largest, with_sizes)\n\nReturn the digests of the F lines, each with its SIZE, at most"
     " *largest*, if *with_sizes*; and the last PATH. None as `columns`."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_lines",
    .m_doc = "The plain lines of a manifest.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__lines(void)
{
    return PyModuleDef_Init(&definition);
}
