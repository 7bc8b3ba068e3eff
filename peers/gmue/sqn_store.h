// The highest sequence number that each USIM has accepted, in memory or kept in a file between runs.
#pragma once

#include "../common/error.h"
#include "../common/milenage.h"

#include <map>
#include <string>

namespace gmgate::peers {

class SqnStore {
public:
    /// An empty path keeps the numbers in memory. The file has one line "IMPI SQN-in-hex" per USIM.
    [[nodiscard]] static Result<SqnStore> open(std::string path, Sqn start);
    [[nodiscard]] Sqn get(const std::string& impi) const;
    void set(const std::string& impi, Sqn sqn);
    /// Writes the file (by rename); also done when the store goes.
    [[nodiscard]] Result<void> save();

    SqnStore() = default;
    ~SqnStore() { (void)save(); }
    SqnStore(SqnStore&&) = default;
    SqnStore& operator=(SqnStore&&) = default;

private:
    std::string path_;
    Sqn start_;
    bool dirty_ = false;
    std::map<std::string, Sqn> numbers_;
};

}  // namespace gmgate::peers
