// What gmctl prints of each answer: JSON in, text for people out. Pure; `width` is the terminal's (0: none).
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace gmgate::gmctl {

std::string status_view(const nlohmann::json& status, std::size_t width);
std::string registrations_view(const nlohmann::json& page, std::size_t width);
std::string record_line(const nlohmann::json& record, std::size_t width);
std::string show_view(const nlohmann::json& shown, std::size_t width);
std::string kernel_view(const nlohmann::json& kernel, std::size_t width);
std::string reload_view(const nlohmann::json& report, std::size_t width);
std::string why_view(const nlohmann::json& verdict, std::size_t width);
/// What changed between two answers of `rates`, per second.
std::string top_view(const nlohmann::json& before, const nlohmann::json& now, double seconds, std::size_t width);

}  // namespace gmgate::gmctl
