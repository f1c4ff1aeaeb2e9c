// Work on items in threads that live as long as the call: nothing to configure, nothing left behind in a forked child.
#pragma once
#include <cstdint>
#include <thread>
#include <vector>

// Calls body(first, last, part) for runs of items 0..n of about equal weight (total(i): weight of the items before i, i = 0..n).
// Below `least` of weight a part is not worth a thread. Which part an item falls into changes no result.
template <class Total, class Body>
static void cg_in_parts(int64_t n, int threads, int64_t least, Total total, Body body) {
    const int64_t weight = total(n);
    int64_t parts = weight / (least > 0 ? least : 1);
    parts = parts < 1 ? 1 : parts > threads ? threads : parts;
    parts = parts > n ? (n < 1 ? 1 : n) : parts;
    std::vector<std::thread> others;
    int64_t first = 0;
    for (int64_t part = 0; part < parts; ++part) {
        int64_t last = first;
        if (part + 1 == parts)
            last = n;
        else
            while (last < n && total(last) * parts < weight * (part + 1)) ++last;
        if (part + 1 == parts)
            body(first, last, part);
        else
            others.emplace_back(body, first, last, part);
        first = last;
    }
    for (auto &t : others) t.join();
}
