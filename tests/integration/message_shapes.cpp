#include "tests/integration/message_shapes.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace gmgate::test {

namespace {

MessageShape read_shape(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream all;
    all << file.rdbuf();
    const std::string text = all.str();
    const auto cut = text.find("---\n");
    if (cut == std::string::npos) throw std::runtime_error(path.string() + " has no ---");
    MessageShape shape{.name = path.stem(), .head = {}, .text = text.substr(cut + 4)};
    std::istringstream head(text.substr(0, cut));
    for (std::string line; std::getline(head, line);) {
        const auto colon = line.find(':');
        if (line.starts_with('#') || colon == std::string::npos) continue;
        shape.head[line.substr(0, colon)] = line.substr(std::min(line.find_first_not_of(' ', colon + 1), line.size()));
    }
    return shape;
}

std::string filler(std::size_t size) {
    constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789";
    std::string out;
    while (out.size() < size) out += kLetters;
    out.resize(size);
    return out;
}

std::string fill(const std::string& text, const std::map<std::string, std::string>& values) {
    std::string out;
    std::size_t from = 0;
    for (auto at = text.find('{'); at != std::string::npos; at = text.find('{', from)) {
        const auto end = text.find('}', at);
        const std::string word = text.substr(at + 1, end - at - 1);
        out += text.substr(from, at - from);
        if (word.starts_with("pad:")) out += filler(std::stoul(word.substr(4)));
        else if (const auto value = values.find(word); value != values.end()) out += value->second;
        else throw std::runtime_error("nothing is known of {" + word + "}");
        from = end + 1;
    }
    return out + text.substr(from);
}

std::string with_crlf(const std::string& text) {
    std::string out;
    for (const char c : text) out += c == '\n' ? std::string("\r\n") : std::string(1, c);
    return out;
}

std::string from_hex(const std::string& digits) {
    std::string out;
    for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
        out += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
    return out;
}

std::string lower(std::string text) {
    std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
}

/// A field's name in its long form, lower case.
std::string name_of(const std::string& field) {
    static const std::map<std::string, std::string> compact{
        {"v", "via"},       {"f", "from"},           {"t", "to"},           {"i", "call-id"}, {"m", "contact"},
        {"k", "supported"}, {"l", "content-length"}, {"c", "content-type"}, {"o", "event"}};
    const std::string name = lower(field.substr(0, field.find_first_of(": \t")));
    const auto known = compact.find(name);
    return known == compact.end() ? name : known->second;
}

std::set<std::string> words(const std::string& text) {
    std::istringstream in(lower(text));
    std::set<std::string> out;
    for (std::string word; in >> word;) out.insert(word);
    return out;
}

}  // namespace

bool MessageShape::is_request_to_peer() const {
    const auto says = [this](const char* key) { return head.contains(key); };
    return head.at("from") == "phone" && !says("in") && !says("answers") && !says("refused") && !says("unread-by") &&
           text.find(" {peer} SIP/2.0\n") != std::string::npos;
}

bool MessageShape::goes_over(const std::string& way) const { return words(head.at("over")).contains(way); }

std::string MessageShape::render(std::map<std::string, std::string> values) const {
    const auto cut = text.find("\n\n");
    std::string body = with_crlf(fill(text.substr(cut + 2), values));
    if (const auto hex = head.find("body-hex"); hex != head.end()) body = from_hex(hex->second);
    values["length"] = std::to_string(body.size());
    return with_crlf(fill(text.substr(0, cut + 2), values)) + body;
}

std::vector<std::string> MessageShape::kept_fields(const std::string& octets,
                                                   const std::set<std::string>& except) const {
    std::vector<std::string> fields;
    std::size_t at = octets.find("\r\n") + 2;
    const std::size_t end = octets.find("\r\n\r\n") + 2;
    while (at < end) {
        const auto line_end = octets.find("\r\n", at);
        const std::string line = octets.substr(at, line_end - at);
        if (line.starts_with(' ') || line.starts_with('\t')) fields.back() += "\r\n" + line;
        else fields.push_back(line);
        at = line_end + 2;
    }
    std::set<std::string> out = except;
    for (const char* key : {"changes", "goes"})
        if (const auto said = head.find(key); said != head.end()) out.merge(words(said->second));
    std::erase_if(fields, [&](const std::string& field) { return out.contains(name_of(field)); });
    return fields;
}

std::vector<MessageShape> read_message_shapes(const std::string& folder) {
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.path().extension() == ".sip") paths.push_back(entry.path());
    std::ranges::sort(paths);
    std::vector<MessageShape> shapes;
    for (const auto& path : paths) shapes.push_back(read_shape(path));
    return shapes;
}

std::string body_of(const std::string& octets) { return octets.substr(octets.find("\r\n\r\n") + 4); }

}  // namespace gmgate::test
