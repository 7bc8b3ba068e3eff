#include "sqn_store.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

namespace gmgate::peers {

Result<SqnStore> SqnStore::open(std::string path, Sqn start) {
    SqnStore out;
    out.path_ = std::move(path);
    out.start_ = start;
    if (out.path_.empty()) return out;
    std::ifstream in(out.path_);
    std::string impi;
    std::string hex;
    while (in >> impi >> hex) {
        const auto octets = array_from_hex<6>(hex);
        if (!octets) return fail("{}: '{}' is not a sequence number of 12 hexadecimal digits", out.path_, hex);
        out.numbers_[impi] = Sqn::from_octets(*octets);
    }
    return out;
}

Sqn SqnStore::get(const std::string& impi) const {
    const auto it = numbers_.find(impi);
    return it == numbers_.end() ? start_ : it->second;
}

void SqnStore::set(const std::string& impi, Sqn sqn) {
    numbers_[impi] = sqn;
    dirty_ = true;
}

Result<void> SqnStore::save() {
    if (path_.empty() || !dirty_) return {};
    const std::string next = path_ + ".new";
    std::ofstream out(next, std::ios::trunc);
    for (const auto& [impi, sqn] : numbers_) out << impi << ' ' << to_hex(sqn.octets()) << '\n';
    out.close();
    if (!out || std::rename(next.c_str(), path_.c_str()) != 0) return fail("{}: {}", path_, std::strerror(errno));
    dirty_ = false;
    return {};
}

}  // namespace gmgate::peers
