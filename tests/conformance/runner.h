// Runs one conformance case: policy, messages, answers of the core, and what must follow. README.md is the reference of
// the language.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/conformance/case_file.h"
#include "tests/conformance/register_world.h"

namespace gmgate::test {

class Runner {
public:
    explicit Runner(std::filesystem::path folder) : folder_(std::move(folder)) {}
    /// What did not come out as the case says, each "file:line: …"; empty when the case holds.
    std::vector<std::string> run(const Case& c);

private:
    void step(const Case& c, const Block& block);
    void set_policy(const Block& block);
    void include(const std::string& name);
    void say(const Block& block);
    void flush();
    void expect(const Block& block);
    void expect_line(const std::string& line);
    void expect_lists(const Block& block);
    bool expect_message(const std::string& who, const std::string& message, const std::string& rest);
    bool expect_count(const std::string& word, const std::string& rest);

    RegisterWorld& world();
    std::string fill(const std::string& text) const;
    std::string complete(const std::string& text, const sip::Flow& flow) const;
    sip::Flow flow_of(const std::string& info);
    void remember(const std::string& text);
    void problem(const std::string& what);

    std::filesystem::path folder_;
    std::unique_ptr<RegisterWorld> world_;
    daemon::Config config_;
    std::vector<std::string> problems_;
    const Case* case_ = nullptr;
    std::size_t line_ = 0;
    std::size_t expectations_ = 0;

    // the exchange at hand
    std::string pending_;  ///< a UE message that waits for the core's answers to be known
    sip::Flow pending_flow_;
    bool has_pending_ = false;
    std::shared_ptr<RecordedTransaction> transaction_;
    std::string answer_, core_, sent_;
    std::size_t core_seen_ = 0;
    std::string verdict_;
    std::vector<std::string> lists_;

    // across exchanges
    std::string verify_, client_;
    std::map<std::string, sip::Flow> connections_;  ///< TLS connections by their names in the case
    Impi impi_;
    mutable int cseq_ = 0;
};

/// `list` with parameters replaced: "spi-s=4711" sets spi-s in every mechanism that has it, "-mod" takes mod out.
std::string with_parameters(std::string list, const std::vector<std::string>& changes);

}  // namespace gmgate::test
