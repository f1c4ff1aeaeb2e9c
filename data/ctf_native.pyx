# sources: ctf.cpp
"""CTF text: its index, its parser, its numbers; all in threads and without the GIL."""
import os

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.vector cimport vector

cdef extern from "ctf.h" nogil:
    struct cg_ctf_fault:
        int64_t item, offset, code, stream, got
    struct cg_ctf_index:
        cbool ids
        vector[int64_t] offset
        vector[uint64_t] id
        vector[string] names
        vector[vector[int32_t]] count
        vector[cg_ctf_fault] faults
    void cg_ctf_scan(int fd, const char *whole, int64_t size, int threads, int64_t chunk, cg_ctf_index &out)
    struct cg_ctf_stream:
        string name
        int64_t dim
        cbool sparse
        float *rows
        int32_t *row_sizes
        vector[int64_t] first
    struct cg_ctf_sparse:
        vector[int32_t] index
        vector[float] value
    void cg_close_text(char *text, int64_t size)
    void cg_ctf_read(int fd, const char *whole, int64_t whole_size, int64_t n, const int64_t *begin, const int64_t *end,
                     int threads, vector[cg_ctf_stream] &streams, vector[vector[cg_ctf_sparse]] &sparse, cbool every,
                     vector[cg_ctf_fault] &faults, cbool &sorted)
    int cg_float_of_text(const char *text, int64_t size, cbool any_processor, float *out)
    void cg_ctf_format(const float *rows, int64_t n, int64_t dim, cbool sparse, const string &head, string &out)
    enum:
        CG_CTF_READ, CG_CTF_TEXT, CG_CTF_NUMBER, CG_CTF_NOT_FINITE, CG_CTF_FEW, CG_CTF_MANY, CG_CTF_INDEX, CG_CTF_PAIR
        CG_CTF_TWICE, CG_CTF_EMPTY, CG_CTF_UTF8, CG_CTF_CHANGED, CG_CTF_STREAMS, CG_CTF_PAD

__all__ = ['CODES', 'float_of_text', 'format_rows', 'read', 'scan', 'text_of']

CODES = {'read': CG_CTF_READ, 'text': CG_CTF_TEXT, 'number': CG_CTF_NUMBER, 'not finite': CG_CTF_NOT_FINITE, 'few': CG_CTF_FEW,
         'many': CG_CTF_MANY, 'index': CG_CTF_INDEX, 'pair': CG_CTF_PAIR, 'twice': CG_CTF_TWICE, 'empty': CG_CTF_EMPTY,
         'utf8': CG_CTF_UTF8, 'changed': CG_CTF_CHANGED, 'streams': CG_CTF_STREAMS}


cdef list list_faults(vector[cg_ctf_fault] &faults):
    return [(f.item, f.offset, f.code, f.stream, f.got) for f in faults]


def scan(int fd, int64_t size, int threads, int64_t chunk=1 << 20, const uint8_t[::1] text=None):
    """(offsets (n + 1,) int64, ids (n,) uint64 or None, [(name, samples (n,) int32)], faults) of a file of `size` bytes.

    text: its `text_of`, where that is there: nothing is read then.
    """
    cdef cg_ctf_index found
    cdef const char *whole = NULL
    cdef int64_t n, k
    if threads < 1 or chunk < 1:
        raise ValueError(f'scan: expected 1 thread and byte or more, got {threads} and {chunk}')
    if text is not None:
        if text.shape[0] < size:
            raise ValueError(f'scan: expected a text of {size} bytes, got {text.shape[0]}')
        whole = <const char *> &text[0]
    with nogil:
        cg_ctf_scan(fd, whole, size, threads, chunk, found)
    faults = list_faults(found.faults)
    if faults:
        return None, None, [], faults
    n = <int64_t> found.offset.size() - 1
    offsets, ids, columns = np.empty(n + 1, np.int64), None, []
    cdef int64_t[::1] o = offsets
    memcpy(&o[0], found.offset.data(), (n + 1) * sizeof(int64_t))
    found.offset = vector[int64_t]()
    cdef uint64_t[::1] d
    if found.ids and n:
        ids = np.empty(n, np.uint64)
        d = ids
        memcpy(&d[0], found.id.data(), n * sizeof(uint64_t))
        found.id = vector[uint64_t]()
    cdef int32_t[::1] c
    for k in range(<int64_t> found.names.size()):
        count = np.empty(n, np.int32)
        if n:
            c = count
            memcpy(&c[0], found.count[k].data(), n * sizeof(int32_t))
            found.count[k] = vector[int32_t]()
        columns.append((found.names[k], count))
    return offsets, ids, columns, faults


def text_of(int fd, int64_t size):
    """All `size` bytes of an open file, as `read` takes them, (size + padding,) uint8; None where it has fewer."""
    text = np.empty(size + CG_CTF_PAD + 1, np.uint8)
    cdef int64_t done = 0
    while done < size:
        part = os.pread(fd, min(size - done, 1 << 20), done)
        if not part:
            return None
        text[done:done + len(part)] = np.frombuffer(part, np.uint8)
        done += len(part)
    cdef char[::1] t = text.view(np.int8)
    cg_close_text(&t[0], size)
    return text


def read(int fd, const int64_t[::1] begin, const int64_t[::1] end, list names, list dims, list rows, list firsts, int threads,
         bint every_fault=False, const uint8_t[::1] text=None):
    """Parses the sequences at begin..end (n,) of an open file, or of its `text_of`; returns (sparse, faults, sorted).

    For each stream: its name (bytes), its dimension, the first samples (n + 1,) of the sequences, and the array (samples, dim)
    float32 to fill, or None for a sparse stream; `sparse` has (row sizes (samples,) int32, indices int32, values float32).
    """
    cdef int64_t n = begin.shape[0], s, samples, total, at
    cdef int S = <int> len(names), part
    cdef vector[cg_ctf_stream] streams
    cdef vector[vector[cg_ctf_sparse]] sparse
    cdef vector[cg_ctf_fault] faults
    cdef cbool rising = True
    cdef cg_ctf_stream stream
    cdef const int64_t[::1] first
    cdef float[:, ::1] dense
    cdef int32_t[::1] sizes, indices
    cdef float[::1] values
    cdef const char *whole = NULL
    cdef int64_t whole_size = 0
    if text is not None:
        whole, whole_size = <const char *> &text[0], text.shape[0] - CG_CTF_PAD - 1
        if n and (np.asarray(end).max() > whole_size or np.asarray(begin).min() < 0):
            raise ValueError('read: expected sequences inside the text')
    if end.shape[0] != n or threads < 1:
        raise ValueError('read: expected as many ends as beginnings, and a thread')
    row_sizes = [None] * S
    for s in range(S):
        first = firsts[s]
        if first.shape[0] != n + 1 or first[0] != 0:
            raise ValueError(f'read: expected first samples ({n + 1},) from 0 on')
        samples = first[n]
        stream.name, stream.dim, stream.sparse = names[s], dims[s], rows[s] is None
        stream.first.assign(&first[0], &first[0] + n + 1)
        stream.rows = NULL
        stream.row_sizes = NULL
        if rows[s] is None:
            row_sizes[s] = np.zeros(samples, np.int32)
            if samples:
                sizes = row_sizes[s]
                stream.row_sizes = &sizes[0]
        else:
            dense = rows[s]
            if dense.shape[0] != samples or dense.shape[1] != stream.dim:
                raise ValueError(f'read: expected rows ({samples}, {stream.dim}), got ({dense.shape[0]}, {dense.shape[1]})')
            if samples:
                stream.rows = &dense[0, 0]
        streams.push_back(stream)
    if n:
        with nogil:
            cg_ctf_read(fd, whole, whole_size, n, &begin[0], &end[0], threads, streams, sparse, every_fault, faults, rising)
    out = []
    for s in range(S):
        if rows[s] is not None:
            out.append(None)
            continue
        total = 0
        for part in range(<int> sparse.size()):
            total += sparse[part][s].index.size()
        i, v = np.empty(total, np.int32), np.empty(total, np.float32)
        if total:
            indices, values, at = i, v, 0
            for part in range(<int> sparse.size()):
                samples = sparse[part][s].index.size()
                if samples:
                    memcpy(&indices[at], sparse[part][s].index.data(), samples * sizeof(int32_t))
                    memcpy(&values[at], sparse[part][s].value.data(), samples * sizeof(float))
                at += samples
        out.append((row_sizes[s], i, v))
    return out, list_faults(faults), bool(rising)


def float_of_text(bytes text, bint any_processor=False):
    """The float32 nearest to a decimal number; None if it is no number, infinity beyond the range."""
    cdef float out = 0
    cdef int what = cg_float_of_text(text, len(text), any_processor, &out)
    return None if what == 1 else np.float32(np.inf) if what == 2 else np.float32(out)


def format_rows(const float[:, ::1] rows, bytes head, bint sparse=False):
    """Rows (n, d) as n lines, each `head` and the numbers, or the index:number of those that are not 0."""
    cdef string out, h = head
    cdef int64_t n = rows.shape[0], d = rows.shape[1]
    with nogil:
        if n:
            cg_ctf_format(&rows[0, 0] if d else NULL, n, d, sparse, h, out)
    return <bytes> out
