// What gmctl prints of each answer: JSON in, text for people out. Pure; `width` is the terminal's (0: none).
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace gmgate::gmctl {

std::string status_view(const nlohmann::json& status, std::size_t width);
/// Identities whole; on a terminal (`width` not 0) what is the same in all rows is named once, above.
std::string registrations_view(const nlohmann::json& page, std::size_t width);
/// Active, this period, ever, most in a period.
std::string registration_numbers_view(const nlohmann::json& page, std::size_t width);
std::string core_view(const nlohmann::json& core, std::size_t width);
std::string sa_stats_view(const nlohmann::json& stats, std::size_t width);
std::string record_line(const nlohmann::json& record, std::size_t width);
/// Registrations and calls that failed and whose messages are kept, two lines each: identity and Call-ID are never cut.
std::string kept_view(const nlohmann::json& kept, std::size_t width);
std::string show_view(const nlohmann::json& shown, std::size_t width);
/// Who serves in a cluster, and how its shared store does.
std::string cluster_view(const nlohmann::json& cluster, std::size_t width);
std::string kernel_view(const nlohmann::json& kernel, std::size_t width);
std::string reload_view(const nlohmann::json& report, std::size_t width);
/// The paragraph, and the verdict at its end.
std::string why_view(const nlohmann::json& verdict, std::size_t width);
/// The same behind what it rests on.
std::string why_view_with_evidence(const nlohmann::json& verdict, std::size_t width);
/// What changed between two answers of `rates`, per second, the busiest first; at most `height` lines (0: all).
std::string top_view(const nlohmann::json& before, const nlohmann::json& now, double seconds, std::size_t width,
                     std::size_t height = 0);

// ---- for the views themselves
/// A field as text, "" when it is not there.
std::string text_of(const nlohmann::json& object, const char* key);
/// 0 when it is no number.
long long number_of(const nlohmann::json& object, const char* key);
/// An empty object when it is not there. A reference into `object`.
const nlohmann::json& part(const nlohmann::json& object, const char* key);

}  // namespace gmgate::gmctl
