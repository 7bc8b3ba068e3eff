// Fuzz target: one Security-* field value, or two of them separated by a line end, compared with each other.
#include "tests/fuzz/invariants.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
    using namespace gmgate::sip;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const std::size_t line = text.find('\n');
    const std::string_view first = text.substr(0, line);
    invariants::check_list(first);
    if (line == std::string_view::npos) return 0;
    const std::string_view second = text.substr(line + 1);
    invariants::check_list(second);
    const auto left = SecurityList::parse(first);
    const auto right = SecurityList::parse(second);
    if (left && right)
        invariants::require(difference(*left, *right).has_value() == difference(*right, *left).has_value(),
                            "comparison is symmetric");
    return 0;
}
