/* Streams, events and graphs of the emulated device. */
#include <time.h>

#include "fakecuda.h"

static double now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

Stream *stream_of(void *handle) { return reinterpret_cast<uintptr_t>(handle) <= 2 ? &legacy : static_cast<Stream *>(handle); }
bool there(Stream *s) { return s == &legacy || streams.count(s); }

/* Runs a stream's work up to a position. */
Result run_until(Stream *s, uint64_t position) {
    while (s->done < position && !s->queue.empty()) {
        Work work = std::move(s->queue.front());
        s->queue.pop_front();
        Result r = sticky ? Result(sticky) : work();
        s->done++;
        if (r) sticky = r;
    }
    return Result(sticky);
}
Result drain(Stream *s) { return run_until(s, s->put); }
Result drain_all() {
    for (auto *s : streams) drain(s);
    return drain(&legacy);
}
/* Puts a work on a stream: into the graph that it captures, at the end of its queue, or at once. */
Result put(void *handle, Work work) {
    Stream *s = stream_of(handle);
    if (!there(s)) return say(INVALID_HANDLE, "a call on a stream that was destroyed");
    if (s->capture) {
        if (s->capture->invalid) return CAPTURE_INVALIDATED;
        s->capture->nodes.push_back(std::move(work));
        if (s != s->capture->origin) s->capture->open.insert(s);
        return SUCCESS;
    }
    if (s == &legacy && !capturing.empty()) {
        for (auto *g : capturing) g->invalid = true;
        return say(CAPTURE_IMPLICIT, "work on the legacy stream during a capture");
    }
    if (s == &legacy) drain_all();
    s->queue.push_back(std::move(work));
    s->put++;
    return setting("LAZY") ? Result(sticky) : drain(s);
}
/* What a thread that captures may not do (cudaStreamCaptureModeGlobal and ThreadLocal). */
Result unsafe(const char *what) {
    bool global = false;
    for (auto *g : capturing) global |= g->mode == 0;
    if (!captures && !global) return SUCCESS;
    for (auto *g : capturing) g->invalid = true;
    return say(CAPTURE_UNSUPPORTED, "%s during a capture", what);
}

/* --- streams and events ------------------------------------------------------------------------------------------------- */

API cuStreamCreate(void **stream, unsigned) {
    IN_CONTEXT;
    auto *made = new Stream;
    streams.insert(made);
    return *stream = made, SUCCESS;
}
API cuStreamCreateWithPriority(void **stream, unsigned flags, int) { return cuStreamCreate(stream, flags); }
API cuStreamDestroy_v2(void *stream) {
    LOCKED;
    Stream *s = stream_of(stream);
    if (s == &legacy || !there(s)) return INVALID_HANDLE;
    drain(s);
    streams.erase(s);
    delete s;
    return SUCCESS;
}
API cuStreamSynchronize(void *stream) {
    IN_CONTEXT;
    Stream *s = stream_of(stream);
    if (!there(s)) return INVALID_HANDLE;
    if (s->capture) return s->capture->invalid = true, say(CAPTURE_UNSUPPORTED, "cuStreamSynchronize of a stream that captures");
    if (s == &legacy) return drain_all();
    return drain(s);
}
API cuStreamQuery(void *stream) {
    IN_CONTEXT;
    Stream *s = stream_of(stream);
    if (s->capture) return s->capture->invalid = true, CAPTURE_UNSUPPORTED;
    return s->queue.empty() ? SUCCESS : NOT_READY;
}
API cuEventCreate(void **event, unsigned flags) {
    IN_CONTEXT;
    auto *made = new Event;
    made->timed = !(flags & 2);
    counts.events++;
    return *event = made, SUCCESS;
}
API cuEventDestroy_v2(void *event) {
    LOCKED;
    auto *e = static_cast<Event *>(event);
    if (e->stream && there(e->stream)) run_until(e->stream, e->position);
    counts.events--;
    delete e;
    return SUCCESS;
}
API cuEventRecord(void *event, void *stream) {
    IN_CONTEXT;
    auto *e = static_cast<Event *>(event);
    Stream *s = stream_of(stream);
    if (!there(s)) return INVALID_HANDLE;
    e->stream = s, e->capture = s->capture;
    if (s->capture) return e->position = s->capture->nodes.size(), SUCCESS;
    e->position = s->put + 1;
    return put(stream, [=] { return e->time = now(), SUCCESS; });
}
API cuEventSynchronize(void *event) {
    IN_CONTEXT;
    auto *e = static_cast<Event *>(event);
    if (e->capture) return CAPTURED_EVENT;
    return e->stream && there(e->stream) ? run_until(e->stream, e->position) : SUCCESS;
}
API cuEventQuery(void *event) {
    IN_CONTEXT;
    auto *e = static_cast<Event *>(event);
    if (e->capture) return CAPTURED_EVENT;
    return !e->stream || !there(e->stream) || e->stream->done >= e->position ? SUCCESS : NOT_READY;
}
API cuEventElapsedTime_v2(float *ms, void *begin, void *end) {
    IN_CONTEXT;
    auto *a = static_cast<Event *>(begin), *b = static_cast<Event *>(end);
    if (!a->timed || !b->timed || !a->stream || !b->stream) return INVALID_HANDLE;
    if (cuEventQuery(begin) || cuEventQuery(end)) return NOT_READY;
    return *ms = (b->time - a->time) * 1e3, SUCCESS;
}
API cuEventElapsedTime(float *ms, void *begin, void *end) { return cuEventElapsedTime_v2(ms, begin, end); }
API cuStreamWaitEvent(void *stream, void *event, unsigned) {
    IN_CONTEXT;
    auto *e = static_cast<Event *>(event);
    Stream *s = stream_of(stream), *other = e->stream;
    if (!other) return SUCCESS;
    if (e->capture) {
        if (e->capture->invalid || !capturing.count(e->capture.get())) return CAPTURE_INVALIDATED;
        if (s->capture && s->capture != e->capture) return CAPTURE_ISOLATION;
        if (s == &legacy) return CAPTURE_IMPLICIT;
        if (!s->capture) s->capture = e->capture, s->capture->open.insert(s);
        if (s == s->capture->origin) s->capture->open.erase(other);
        return SUCCESS;
    }
    if (s->capture) return s->capture->invalid = true, say(CAPTURE_ISOLATION, "a stream that captures waits for one that does not");
    const uint64_t position = e->position;
    return put(stream, [=] { return there(other) ? run_until(other, position) : SUCCESS; });
}

/* --- graphs, by capture ------------------------------------------------------------------------------------------------- */

API cuStreamBeginCapture_v2(void *stream, int mode) {
    IN_CONTEXT;
    Stream *s = stream_of(stream);
    if (s == &legacy || s->capture) return CAPTURE_UNSUPPORTED;
    drain(s);
    s->capture = std::make_shared<Graph>();
    s->capture->origin = s, s->capture->mode = mode;
    capturing.insert(s->capture.get());
    captures += mode != 2;
    return SUCCESS;
}
/* What stand-ins of libraries put on a stream. */
API cuLaunchHostFunc(void *stream, void (*f)(void *), void *data) {
    IN_CONTEXT;
    return put(stream, [=] { return f(data), SUCCESS; });
}
API cuStreamIsCapturing(void *stream, int *status) {
    LOCKED;
    const Stream *s = stream_of(stream);
    return *status = !s->capture ? 0 : s->capture->invalid ? 2 : 1, SUCCESS;
}
API cuStreamEndCapture(void *stream, void **graph) {
    LOCKED;
    *graph = nullptr;
    Stream *s = stream_of(stream);
    if (!s->capture || s->capture->origin != s) return CAPTURE_UNMATCHED;
    auto made = s->capture;
    capturing.erase(made.get());
    captures -= made->mode != 2;
    for (auto *other : streams)
        if (other->capture == made) other->capture.reset();
    if (sticky) return sticky;
    if (made->invalid) return CAPTURE_INVALIDATED;
    if (!made->open.empty()) return CAPTURE_UNJOINED;
    auto *g = new Graph;
    g->nodes = made->nodes;
    return *graph = g, SUCCESS;
}
API cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long) {
    IN_CONTEXT;
    SAFE("cuGraphInstantiate");
    return *executable = new Graph(*static_cast<Graph *>(graph)), SUCCESS;
}
API cuGraphUpload(void *, void *) { return SUCCESS; }
API cuGraphLaunch(void *executable, void *stream) {
    IN_CONTEXT;
    counts.graph_launches++;
    auto nodes = static_cast<Graph *>(executable)->nodes;
    return put(stream, [=] {
        for (auto &node : nodes)
            if (Result r = node()) return r;
        return SUCCESS;
    });
}
API cuGraphGetNodes(void *graph, void *, size_t *n) { return *n = static_cast<Graph *>(graph)->nodes.size(), SUCCESS; }
API cuGraphDestroy(void *graph) { return delete static_cast<Graph *>(graph), SUCCESS; }
API cuGraphExecDestroy(void *executable) {
    LOCKED;
    drain_all();
    return delete static_cast<Graph *>(executable), SUCCESS;
}
