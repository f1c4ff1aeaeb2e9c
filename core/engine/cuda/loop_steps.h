/* The steps of a recurrence as one command of a plan. See loop_steps.pyx. */
#ifndef COGKIT_LOOP_STEPS_H
#define COGKIT_LOOP_STEPS_H
#include <stdint.h>

#include <vector>

#include "command.h"

namespace cg {

/* An address that a command reads: base + offset[t] * row_bytes + offset. */
struct Word {
    uint64_t *at;
    int64_t base; /* a buffer, or -1 - i: what carry i was at another step */
    int64_t row_bytes, offset;
};

struct Part {
    const cg_command *command;
    int64_t own; /* number of a command that each step has one of; -1: this one, once its words are written */
    std::vector<Word> words;
};

/* By the number of rows of a step. */
using Programs = std::vector<std::vector<Part>>;

/* What a value was `shift` steps before. */
struct Carry {
    int64_t source, shift, row_bytes;
    int64_t target; /* base of the place where rows are put together; -1: they always lie together */
    const cg_command *copy;
    uint64_t *arguments; /* from, to, words that are there, words */
};

struct LoopSteps {
    cg_command command{run, this};
    const Programs *programs = nullptr;
    std::vector<int64_t> alive, offset;
    std::vector<uint64_t> addresses, carried;
    std::vector<Carry> carries;
    std::vector<const cg_command *> own; /* by step, then number */
    std::vector<size_t> first_own;
    uint64_t zeros = 0;
    bool forward = true;

    uint64_t at(int64_t base, int64_t row_bytes, int64_t t) const {
        return (base >= 0 ? addresses[base] : carried[-1 - base]) + offset[t] * row_bytes;
    }

    /* Where the values of other steps lie for step t. Those that do not lie together are put together on a stream, if there is one. */
    int carry(int64_t t, void *stream) {
        const int64_t steps = (int64_t)alive.size(), n = alive[t];
        for (size_t i = 0; i < carries.size(); i++) {
            const Carry &c = carries[i];
            const int64_t from = t - c.shift;
            if (from < 0 || from >= steps) {
                carried[i] = zeros;
            } else if (alive[from] >= n) {
                carried[i] = at(c.source, c.row_bytes, from);
            } else {
                carried[i] = addresses[c.target];
                if (!stream) continue;
                c.arguments[0] = at(c.source, c.row_bytes, from), c.arguments[1] = carried[i];
                c.arguments[2] = alive[from] * c.row_bytes / 4, c.arguments[3] = n * c.row_bytes / 4;
                if (const int result = c.copy->run(c.copy, stream)) return result;
            }
        }
        return 0;
    }

    int go(void *stream) {
        const int64_t steps = (int64_t)alive.size();
        for (int64_t i = 0; i < steps; i++) {
            const int64_t t = forward ? i : steps - 1 - i;
            if (const int result = carry(t, stream)) return result;
            for (const Part &part : (*programs)[alive[t]]) {
                for (const Word &w : part.words) *w.at = at(w.base, w.row_bytes, t) + w.offset;
                const cg_command *c = part.own < 0 ? part.command : own[first_own[t] + part.own];
                if (const int result = c->run(c, stream)) return result;
            }
        }
        return 0;
    }

    static int run(const cg_command *command, void *stream) { return ((LoopSteps *)command->state)->go(stream); }
};

} // namespace cg
#endif
