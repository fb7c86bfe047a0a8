/*
 * Many short files in one call, without the interpreter lock: the system calls that the Python code makes, and no others.
 *
 * Nothing is decided here. What is not plain is left out of the answer, and the Python code for one file does it and
 * gives its error. It needs Linux, which has openat2(2), and uses Python's stable ABI. hatch_build.py compiles it.
 */

#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

/* Files of one call that reads or writes, and the largest size of a file that is read. */
#define MOST_FILES 64
#define MOST_BYTES (64 * 1024)
/* Keys of one call that asks for lengths, and names of one that checks. */
#define MOST_KEYS 4096

/* As in paths/beneath.py and streams.py. A test compares them. */
#define READ (O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC)
#define LOOK (O_PATH | O_NOFOLLOW | O_CLOEXEC)
#define FOLDER (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define CREATE (O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC)
/* RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH. */
#define RESOLVE (0x02 | 0x04 | 0x08)

struct how {
    uint64_t flags, mode, resolve;
};

static int open_beneath(int directory, const char *path, uint64_t flags)
{
    struct how how = {flags, 0, RESOLVE};

    return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

/* Return a tuple of what was *given*, which keeps it whatever other threads do. Refuse more than *most*. */
static PyObject *taken(PyObject *given, Py_ssize_t most)
{
    PyObject *found = PySequence_Tuple(given);

    if (found != NULL && PyTuple_Size(found) > most) {
        PyErr_Format(PyExc_ValueError, "at most %zd in one call", most);
        Py_CLEAR(found);
    }
    return found;
}

/* Raise ValueError unless there are *count* in a tuple. */
static int has_count(PyObject *found, Py_ssize_t count)
{
    if (PyTuple_Size(found) == count)
        return 1;
    PyErr_SetString(PyExc_ValueError, "the arguments have different lengths");
    return 0;
}

/* Fill *texts* from a tuple of str, which owns them. What is no UTF-8, or has a NUL byte, becomes NULL. */
static int take_texts(PyObject *found, const char **texts)
{
    for (Py_ssize_t i = 0; i < PyTuple_Size(found); i++) {
        Py_ssize_t length;
        texts[i] = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(found, i), &length);
        if (texts[i] == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
                return 0;
            PyErr_Clear();
        } else if (strlen(texts[i]) != (size_t)length) {
            texts[i] = NULL;
        }
    }
    return 1;
}

/* Fill *numbers* from a tuple of int. Raise ValueError for one that is below 0 or above *most*. */
static int take_numbers(PyObject *found, long most, long *numbers)
{
    for (Py_ssize_t i = 0; i < PyTuple_Size(found); i++) {
        numbers[i] = PyLong_AsLong(PyTuple_GetItem(found, i));
        if (numbers[i] == -1 && PyErr_Occurred())
            return 0;
        if (numbers[i] < 0 || numbers[i] > most) {
            PyErr_Format(PyExc_ValueError, "%ld is not a number from 0 to %ld", numbers[i], most);
            return 0;
        }
    }
    return 1;
}

#include "_reading.h"
#include "_writing.h"
#include "_checking.h"

static int execute(PyObject *module)
{
    static const struct {
        const char *name;
        long value;
    } constants[] = {{"READ", READ},     {"LOOK", LOOK},       {"FOLDER", FOLDER}, {"CREATE", CREATE},
                     {"ABSENT", ABSENT}, {"NO_FILE", NO_FILE}, {"ASK", ASK},
                     {"AS_LISTED", AS_LISTED}, {"OTHERWISE", OTHERWISE}, {"UNKNOWN", UNKNOWN},
                     {"MOST_FILES", MOST_FILES}, {"MOST_BYTES", MOST_BYTES}};

    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            return -1;
    return 0;
}

static PyMethodDef methods[] = {
    {"read_many", py_read_many, METH_VARARGS,
     "read_many(directory, paths, sizes, still)\n\nReturn the bytes of each file and at most one more than its size, or if"
     " *still*, only whole files of at most that size. None for what is not plain."},
    {"lengths", py_lengths, METH_VARARGS,
     "lengths(root, keys)\n\nReturn the lengths of files as an array of 64-bit integers, ASK for what is not plain."},
    {"check_many", py_check_many, METH_VARARGS,
     "check_many(folder, names, modes)\n\nReturn a byte for each name: AS_LISTED for a file with that mode, OTHERWISE for"
     " what is not there or is otherwise, UNKNOWN for what is not plain."},
    {"create_many", py_create_many, METH_VARARGS,
     "create_many(above, folders, folder_mode, names, data, file_mode)\n\nMake a folder below each of *above*, and in it"
     " a file with *data*. Return a descriptor of each folder that was made, or its complement if the folder was there."
     " Fewer are returned where one is not plain."},
    {"write_many", py_write_many, METH_VARARGS,
     "write_many(folders, names, data, modes)\n\nWrite new files into open folders. Return how many: fewer where one is"
     " not plain."},
    {"rename_many", py_rename_many, METH_VARARGS,
     "rename_many(folders, names, new_names, close)\n\nRename files inside open folders, which are closed then if *close*."
     " Return how many: fewer where one fails."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_files",
    .m_doc = "Many short files in one call.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__files(void)
{
    return PyModuleDef_Init(&definition);
}
