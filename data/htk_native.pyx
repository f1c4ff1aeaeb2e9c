# sources: htk.cpp
"""HTK features and label files: reading, splicing and parsing in threads and without the GIL."""
import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memcpy
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.unordered_map cimport unordered_map
from libcpp.vector cimport vector

cdef extern from "htk.h" nogil:
    struct cg_htk_fault:
        int64_t item, offset, code, got
    void cg_htk_read(const vector[string] &paths, int64_t n, const int64_t *file, const int64_t *offset, const int64_t *count,
                     int64_t dim, int64_t left, int64_t right, int threads, float *out, vector[cg_htk_fault] &faults)
    void cg_htk_splice(const float *rows, int64_t dim, int64_t n, const int64_t *begin, const int64_t *end, const int64_t *at,
                       int64_t left, int64_t right, float *out)
    struct cg_mlf_index:
        string keys
        vector[int64_t] key
        vector[int64_t] begin
        vector[int64_t] end
        vector[int64_t] last
        vector[cg_htk_fault] faults
    void cg_mlf_scan(int fd, int64_t size, cg_mlf_index &out)
    void cg_mlf_read(int fd, int64_t n, const int64_t *begin, const int64_t *end, const int64_t *frames, int64_t unit,
                     int64_t classes, const unordered_map[string, int32_t] &names, int threads, cbool every, int32_t *label,
                     uint8_t *starts, vector[cg_htk_fault] &faults)
    enum:
        CG_HTK_READ, CG_HTK_NOT_FINITE, CG_MLF_HEAD, CG_MLF_KEY, CG_MLF_END, CG_MLF_LINE, CG_MLF_GAP, CG_MLF_LABEL, CG_MLF_UTF8
        CG_MLF_CHANGED

__all__ = ['CODES', 'Names', 'read_frames', 'read_labels', 'scan_labels', 'splice']

CODES = {'read': CG_HTK_READ, 'not finite': CG_HTK_NOT_FINITE, 'head': CG_MLF_HEAD, 'key': CG_MLF_KEY, 'end': CG_MLF_END,
         'line': CG_MLF_LINE, 'gap': CG_MLF_GAP, 'label': CG_MLF_LABEL, 'utf8': CG_MLF_UTF8, 'changed': CG_MLF_CHANGED}


cdef list list_faults(vector[cg_htk_fault] &faults):
    return [(f.item, f.offset, f.code, f.got) for f in faults]


cdef numbers(vector[int64_t] &values):
    out = np.empty(values.size(), np.int64)
    cdef int64_t[::1] o
    if values.size():
        o = out
        memcpy(&o[0], values.data(), values.size() * sizeof(int64_t))
    return out


def read_frames(list paths, const int64_t[::1] file, const int64_t[::1] offset, const int64_t[::1] count, int64_t dim,
                int64_t left, int64_t right, float[:, ::1] out, int threads):
    """Frames of utterances: count[i] of them, dim numbers each, at byte offset[i] of paths[file[i]] (bytes); returns faults.

    A row of out (all frames, dim * (left + 1 + right)) has its neighbours too, the first and last of an utterance repeated.
    """
    cdef vector[string] names = paths
    cdef vector[cg_htk_fault] faults
    cdef int64_t n = file.shape[0], i, total = 0
    if offset.shape[0] != n or count.shape[0] != n or dim < 1 or left < 0 or right < 0 or threads < 1:
        raise ValueError('read_frames: expected as many files, offsets and counts, and a dim and thread or more')
    for i in range(n):
        if count[i] < 0 or offset[i] < 0 or file[i] < 0 or file[i] >= <int64_t> names.size():
            raise ValueError(f'read_frames: expected frames of {names.size()} files, got {file[i]}, {offset[i]}, {count[i]}')
        total += count[i]
    if out.shape[0] != total or out.shape[1] != dim * (left + 1 + right):
        raise ValueError(f'read_frames: expected out ({total}, {dim * (left + 1 + right)}), got ({out.shape[0]}, {out.shape[1]})')
    if total:
        with nogil:
            cg_htk_read(names, n, &file[0], &offset[0], &count[0], dim, left, right, threads, &out[0, 0], faults)
    return list_faults(faults)


def splice(const float[:, ::1] rows, const int64_t[::1] begin, const int64_t[::1] end, const int64_t[::1] at, int64_t left,
           int64_t right, float[:, ::1] out):
    """out[i] = rows at[i] - left .. at[i] + right, those outside begin[i] .. end[i] taken from the nearest inside."""
    cdef int64_t n = at.shape[0], dim = rows.shape[1], i
    if begin.shape[0] != n or end.shape[0] != n or left < 0 or right < 0 or out.shape[0] != n \
            or out.shape[1] != dim * (left + 1 + right):
        raise ValueError('splice: expected as many beginnings, ends and rows of out as rows, and their neighbours in a row')
    for i in range(n):
        if not 0 <= begin[i] <= at[i] < end[i] <= rows.shape[0]:
            raise ValueError(f'splice: expected rows in [{begin[i]}, {end[i]}), got {at[i]}')
    if n:
        with nogil:
            cg_htk_splice(&rows[0, 0], dim, n, &begin[0], &end[0], &at[0], left, right, &out[0, 0])


def scan_labels(int fd, int64_t size):
    """(keys, all in one bytes; where each begins (n + 1,); begin, end (n,) of its lines; the last time (n,); faults)."""
    cdef cg_mlf_index found
    with nogil:
        cg_mlf_scan(fd, size, found)
    return (<bytes> found.keys, numbers(found.key), numbers(found.begin), numbers(found.end), numbers(found.last),
            list_faults(found.faults))


cdef class Names:
    """Label names (bytes) and their numbers."""
    cdef unordered_map[string, int32_t] table

    def __init__(self, names):
        for i, name in enumerate(names):
            self.table[name] = i

    def __len__(self):
        return self.table.size()


def read_labels(int fd, const int64_t[::1] begin, const int64_t[::1] end, const int64_t[::1] frames, int64_t unit,
                int64_t classes, Names names, int threads, bint every_fault=False):
    """(class of each frame int32, whether a segment begins there uint8, faults) of utterances, lines at begin..end."""
    cdef int64_t n = begin.shape[0], i, total = 0
    cdef vector[cg_htk_fault] faults
    if end.shape[0] != n or frames.shape[0] != n or unit < 1 or threads < 1:
        raise ValueError('read_labels: expected as many beginnings, ends and frames, and a unit and thread or more')
    for i in range(n):
        if frames[i] < 0 or begin[i] < 0 or end[i] < begin[i]:
            raise ValueError(f'read_labels: expected lines and frames, got {begin[i]} to {end[i]} and {frames[i]}')
        total += frames[i]
    label, starts = np.zeros(total, np.int32), np.zeros(total, np.uint8)
    cdef int32_t[::1] l
    cdef uint8_t[::1] s
    if total:
        l, s = label, starts
        with nogil:
            cg_mlf_read(fd, n, &begin[0], &end[0], &frames[0], unit, classes, names.table, threads, every_fault, &l[0], &s[0],
                        faults)
    return label, starts, list_faults(faults)
