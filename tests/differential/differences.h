// The ways in which the two parsers may differ, each with its reason. Whatever else they differ in is a finding.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/differential/sofia_lists.h"

namespace gmgate::differential {

/// A class of lists that sofia-sip accepts and gmgate refuses. `holds` looks at what sofia-sip read and at the raw
/// text, never at gmgate's verdict, so that the table also says what must be refused: gmgate accepts exactly what
/// sofia-sip accepts and no row holds for.
struct Difference {
    const char* name;
    const char* why;
    bool (*holds)(const std::string& list, const std::vector<Entry>& read);
};

std::span<const Difference> differences();

}  // namespace gmgate::differential
