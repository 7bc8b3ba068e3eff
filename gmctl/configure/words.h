// Words of a command line, and what is typed turned into what stands in the file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "gmctl/configure/schema.h"

namespace gmgate::daemon::configure {

/// Words separated by blanks; "…" keeps blanks together. Error (reject): a quote that is not closed.
Result<std::vector<std::string>> split_words(std::string_view line);
/// The names that `typed` can stand for: the same one, or else all that begin with it.
std::vector<std::string> matching(const std::vector<std::string>& names, const std::string& typed);
std::vector<std::string> beginning_with(const std::vector<std::string>& names, std::string_view typed);
/// The value in TOML. Lists are typed with blanks or commas, with or without brackets. Error (reject): what the
/// parameter takes.
Result<std::string> in_toml(const Parameter& parameter, const std::vector<std::string>& values);
/// Whether these are changes of a list, each "+VALUE" or "-VALUE", and the parameter is one.
bool are_edits(const Parameter& parameter, const std::vector<std::string>& values);
/// The list that `now` becomes by them; `now` as a value for people. Error (reject): what is taken out is not there, or
/// nothing is left.
Result<std::vector<std::string>> edited_list(const Parameter& parameter, std::string_view now,
                                             const std::vector<std::string>& edits);
/// A value of the sample for people: without quotes and brackets.
std::string without_quotes(std::string_view value);

}  // namespace gmgate::daemon::configure
