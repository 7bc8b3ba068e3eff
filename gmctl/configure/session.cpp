#include "gmctl/configure/session.h"

#include <algorithm>
#include <charconv>
#include <sstream>
#include <utility>

#include <fmt/format.h>

#include "base/near_word.h"
#include "daemon/config/config.h"
#include "gmctl/configure/words.h"

namespace gmgate::daemon::configure {
namespace {

// The parser's mistakes in a text, without file, line and column: they would be those of a text that nobody has seen
// yet.
std::vector<std::string> mistakes_of(const std::string& text, const std::string& name) {
    std::vector<std::string> out;
    if (const auto config = parse_config(text, name); !config) {
        std::istringstream in(config.error().text);
        for (std::string line; std::getline(in, line);) {
            const auto at = line.starts_with(name) ? line.find(": ") : std::string::npos;
            out.push_back(at == std::string::npos ? line : line.substr(at + 2));
        }
    }
    return out;
}

std::string listed(const std::vector<std::string>& lines) {
    std::string out;
    for (const auto& line : lines) out += fmt::format("% {}\n", line);
    return out;
}

std::string group_help(std::string_view group) {
    if (group == "session-router") return "sip-interface (access side), core";
    if (group == "security") return "protected ports and algorithms, certificates, XFRM";
    return "log, limits, timers and the rest";
}

}  // namespace

Session::Session(Schema schema, Document document, std::string name, std::string prompt, Save save)
    : schema_(std::move(schema)),
      draft_(std::move(document)),
      saved_(draft_.text()),
      name_(std::move(name)),
      prompt_(std::move(prompt)),
      save_(std::move(save)),
      is_complete_(parse_config(saved_, name_).has_value()) {}

std::string Session::prompt() const {
    switch (question_) {
        case Question::none:
            break;
        case Question::select:
        case Question::remove:
            return "selection: ";
        case Question::save:
            return "Save Changes [y/n]?: ";
        case Question::leave:
            return "What is not complete is not in the file and will be lost. Leave [y/n]?: ";
    }
    return here().name.empty() ? fmt::format("{}# ", prompt_) : fmt::format("{}({})# ", prompt_, here().name);
}

std::vector<Session::Word> Session::commands() const {
    std::vector<Word> out;
    switch (here().place) {
        case Place::top:
            out = {{"configure", "change the configuration: configure terminal"},
                   {"verify-config", "check the file and the addresses of this machine"},
                   {"save-config", "write what is not in the file yet; each done does that as well"},
                   {"activate-config", "have the running gateway read the file, as gmctl reload does"},
                   {"backup-config", "keep the file beside itself: backup-config NAME"},
                   {"restore-config", "put a kept one in its place: restore-config NAME"}};
            break;
        case Place::configure:
            for (const auto group : kGroups) out.push_back({std::string(group), group_help(group)});
            break;
        case Place::group:
            for (const auto* element : schema_.in_group(here().name)) out.push_back({element->name, element->help});
            break;
        case Place::element:
            out.push_back({"select", here().element->is_list ? "choose which one to edit" : "edit what is there"});
            for (const auto& parameter : here().element->parameters) out.push_back({parameter.name, parameter.help});
            for (const auto& child : here().element->children)
                out.push_back({child.name, child.help.empty() ? "edit those of this element" : child.help});
            out.push_back({"no", here().element->is_list
                                     ? "remove one, or take a parameter back to its default: no PARAMETER"
                                     : "take a parameter back to its default: no PARAMETER"});
            out.push_back({"done", "save"});
            break;
    }
    out.push_back({"show", here().place == Place::element ? "this element, with defaults"
                                                          : "the configuration as it stands in the file"});
    out.push_back({"exit", here().place == Place::top ? "leave" : "one level up"});
    out.push_back({"help", "what can be typed here; ? does the same"});
    return out;
}

std::string Session::execute(std::string_view line) {
    if (question_ != Question::none) return answer(line);
    auto words = split_words(line);
    if (!words) return fmt::format("% {}\n", words.error().text);
    if (words->empty()) return {};
    std::vector<std::string> names;
    for (const auto& command : commands()) names.push_back(command.name);
    const auto typed = words->front() == "?" ? "help" : words->front() == "quit" ? "exit" : words->front();
    const auto known = matching(names, typed);
    if (known.empty())
        return fmt::format("% \"{}\" is not known here{}; ? tells what is\n", typed, did_you_mean(typed, names));
    if (known.size() > 1) return fmt::format("% \"{}\" can be {}\n", typed, fmt::join(known, ", "));
    const auto& word = known.front();
    const std::vector<std::string> rest(words->begin() + 1, words->end());
    if (word == "help") return help(rest.empty() ? std::string{} : rest.front() + " ");
    if (word == "exit") return leave();
    if (word == "show") return show(rest.empty() ? std::string_view{} : std::string_view(rest.front()));
    if (word == "verify-config") return verify();
    if (here().place == Place::top && word.ends_with("-config")) return keep(word, rest);
    if (word == "configure" && (rest.size() != 1 || matching({"terminal"}, rest.front()).empty()))
        return "% it is: configure terminal\n";
    if (here().place == Place::element) {
        if (word == "select") return select(rest.empty() ? std::string_view{} : std::string_view(rest.front()));
        if (word == "done") return done();
        if (word == "no") return start_removal(rest.empty() ? std::string_view{} : std::string_view(rest.front()));
        if (const auto* parameter = here().element->parameter(word)) return change(*parameter, rest);
    }
    return enter(word);
}

// The answer to an open question.
std::string Session::answer(std::string_view line) {
    const auto question = question_;
    question_ = Question::none;
    const auto words = split_words(line);
    const std::string word = words && !words->empty() ? words->front() : "";
    switch (question) {
        case Question::none:
            return {};
        case Question::select:
        case Question::remove: {
            if (word.empty()) return {};
            const auto index = number_of(word);
            if (!index) return fmt::format("% {}\n", index.error().text);
            return question == Question::select ? choose(*index) : remove(*index);
        }
        case Question::save:
            if (word.starts_with('y') || word.starts_with('Y')) {
                auto said = done();
                if (here().before == draft_.text()) said += leave();
                return said;
            }
            return word.starts_with('n') || word.starts_with('N') ? give_up() : "% y or n\n";
        case Question::leave:
            if (word.starts_with('y') || word.starts_with('Y')) over_ = true;
            return {};
    }
    return {};
}

std::string Session::enter(const std::string& word) {
    if (here().place == Place::top) levels_.push_back({Place::configure, "configure"});
    else if (here().place == Place::configure) levels_.push_back({Place::group, word});
    else if (here().place == Place::group) {
        for (const auto* element : schema_.in_group(here().name))
            if (element->name == word) return enter_element(*element);
    } else {
        for (const auto& child : here().element->children)
            if (child.name == word) {
                if (const auto made = make_sure_it_exists(); !made) return fmt::format("% {}\n", made.error().text);
                return enter_element(child);
            }
    }
    return {};
}

std::string Session::enter_element(const Element& element) {
    Level level{Place::element, element.name, &element};
    if (here().place == Place::element) level.path = here().path;
    if (element.is_list) level.path.push_back({element.name, draft_.count(level.path, element.name)});
    else if (element.name != kTopLevel) level.path.push_back({element.name});
    level.is_chosen = !element.is_list && draft_.has(level.path);
    level.before = draft_.text();
    levels_.push_back(std::move(level));
    return {};
}

std::string Session::leave() {
    if (here().place == Place::top) {
        if (has_unsaved()) question_ = Question::leave;
        else over_ = true;
        return {};
    }
    if (here().place == Place::element && here().before != draft_.text()) {
        question_ = Question::save;
        return {};
    }
    levels_.pop_back();
    return {};
}

std::string Session::give_up() {
    if (auto back = Document::parse(here().before, name_)) draft_ = std::move(*back);
    levels_.pop_back();
    return {};
}

// An element that is not there yet comes into being with the first thing that is said of it.
Result<void> Session::make_sure_it_exists() {
    auto& level = here();
    if (level.is_chosen) return {};
    auto parent = level.path;
    const auto step = parent.back();
    parent.pop_back();
    const auto made = draft_.add(parent, step.key, level.element->is_list);
    if (!made) return std::unexpected(made.error());
    level.path.back() = *made;
    level.is_chosen = true;
    return {};
}

// --- select
// ------------------------------------------------------------------------------------------

// "realm01 172.172.30.31:5060": what identifies one, and for an interface the clear ports it listens on.
std::string Session::label(const Path& path, const Element& element) const {
    auto text = draft_.value(path, element.identity()).value_or("(no " + element.identity() + ")");
    const auto port_of = [&](const Path& at, const std::string& address, const std::string& fallback) {
        const auto port = draft_.value(at, "port").value_or(fallback);
        return address.find(':') == std::string::npos ? fmt::format("{}:{}", address, port)
                                                      : fmt::format("[{}]:{}", address, port);
    };
    if (element.parameter("port") && element.identity() == "address")
        return port_of(path, text, element.parameter("port")->fallback);
    for (const auto& child : element.children) {
        if (child.identity() != "address" || !child.parameter("port")) continue;
        for (std::size_t i = 0; i < draft_.count(path, child.name); ++i) {
            auto below = path;
            below.push_back({child.name, i});
            text.append(" ").append(
                port_of(below, draft_.value(below, "address").value_or("?"), child.parameter("port")->fallback));
        }
    }
    return text;
}

std::string Session::listing() const {
    const auto& level = here();
    const auto identity = level.element->identity();
    std::string out = fmt::format("<{}>:\n", identity == "realm-id" ? "RealmID" : identity);
    auto path = level.path;
    const auto parent = Path(path.begin(), path.end() - 1);
    for (std::size_t i = 0; i < draft_.count(parent, level.element->name); ++i) {
        path.back().index = i;
        out += fmt::format("{}: {}\n", i + 1, label(path, *level.element));
    }
    return out + "\n";
}

// A number of the list, or what identifies one.
Result<std::size_t> Session::number_of(std::string_view which) const {
    auto path = here().path;
    const auto count = draft_.count(Path(path.begin(), path.end() - 1), here().element->name);
    std::size_t number = 0;
    const auto parsed = std::from_chars(which.data(), which.data() + which.size(), number);
    if (parsed.ec == std::errc{} && parsed.ptr == which.data() + which.size() && number >= 1 && number <= count)
        return number - 1;
    for (std::size_t i = 0; i < count; ++i) {
        path.back().index = i;
        if (draft_.value(path, here().element->identity()) == which) return i;
    }
    return failure(Reaction::reject, fmt::format("there is no {} \"{}\"", here().element->name, which));
}

std::string Session::select(std::string_view which) {
    const auto& level = here();
    if (!level.element->is_list)
        return level.is_chosen ? ""
                               : fmt::format("% there is no {} in the file yet; set a parameter to make one\n",
                                             level.element->name);
    if (level.before != draft_.text()) return "% there are changes here: done saves them, exit asks\n";
    if (draft_.count(Path(level.path.begin(), level.path.end() - 1), level.element->name) == 0)
        return fmt::format("% there is no {} yet; set its parameters and type done to make one\n", level.element->name);
    if (which.empty()) {
        question_ = Question::select;
        return listing();
    }
    const auto index = number_of(which);
    return index ? choose(*index) : fmt::format("% {}\n", index.error().text);
}

std::string Session::choose(std::size_t index) {
    here().path.back().index = index;
    here().is_chosen = true;
    return {};
}

// --- changes
// ------------------------------------------------------------------------------------------

std::string Session::start_removal(std::string_view what) {
    if (!what.empty()) {
        std::vector<std::string> names;
        for (const auto& parameter : here().element->parameters) names.push_back(parameter.name);
        const auto known = matching(names, std::string(what));
        if (known.size() != 1)
            return fmt::format("% \"{}\" is no parameter of {}{}\n", what, here().element->name,
                               did_you_mean(what, names));
        if (!here().is_chosen) return {};
        const auto unset = draft_.unset(here().path, known.front());
        return unset ? "" : fmt::format("% {}\n", unset.error().text);
    }
    if (!here().element->is_list) return "% name the parameter to take back to its default: no PARAMETER\n";
    if (here().before != draft_.text()) return "% there are changes here: done saves them, exit asks\n";
    if (draft_.count(Path(here().path.begin(), here().path.end() - 1), here().element->name) == 0)
        return fmt::format("% there is no {}\n", here().element->name);
    question_ = Question::remove;
    return listing();
}

std::string Session::remove(std::size_t index) {
    auto& level = here();
    level.path.back().index = index;
    if (const auto gone = draft_.remove(level.path); !gone) return fmt::format("% {}\n", gone.error().text);
    level.path.back().index = draft_.count(Path(level.path.begin(), level.path.end() - 1), level.element->name);
    level.is_chosen = false;
    if (levels_.size() > 1 && levels_[levels_.size() - 2].place == Place::element) {  // its parent's `done` saves
        level.before = draft_.text();
        return "removed; done on the level above saves it\n";
    }
    auto said = write("removed");
    if (draft_.text() != saved_ && is_complete_) {  // others still need it
        if (auto back = Document::parse(level.before, name_)) draft_ = std::move(*back);
        said += "% it stays\n";
    }
    level.before = draft_.text();
    return said;
}

std::string Session::change(const Parameter& parameter, const std::vector<std::string>& values) {
    if (values.empty()) return explain(parameter);
    const auto wanted = edited(parameter, values);
    if (!wanted) return fmt::format("% {}\n", wanted.error().text);
    const auto value = in_toml(parameter, *wanted);
    if (!value) return fmt::format("% {}\n", value.error().text);
    const auto was = draft_;
    const auto path = here().path;
    const auto was_chosen = here().is_chosen;
    const auto made = make_sure_it_exists();
    const auto set = made ? draft_.set(here().path, parameter.name, *value) : made;
    std::vector<std::string> complaints;
    if (!set) complaints = {set.error().text};
    else complaints = wrong_values(parameter, *value);
    if (complaints.empty()) return {};
    draft_ = was;
    here().path = path;
    here().is_chosen = was_chosen;
    for (auto& complaint : complaints) complaint = fmt::format("{}: {}", parameter.name, complaint);
    return listed(complaints);
}

// "+VALUE" adds to what a list has, its defaults too, and "-VALUE" takes out of it; anything else is the whole list.
Result<std::vector<std::string>> Session::edited(const Parameter& parameter,
                                                 const std::vector<std::string>& values) const {
    if (!are_edits(parameter, values)) return values;
    const auto now = here().is_chosen ? draft_.value(here().path, parameter.name) : std::nullopt;
    return edited_list(parameter, now.value_or(without_quotes(parameter.fallback)), values);
}

// What the parser holds against a value: mistakes of this key that it makes both alone and together with what is set
// already. One that only shows together (the other end of a range) can be mended by the next line and is left to
// `done`.
std::vector<std::string> Session::wrong_values(const Parameter& parameter, const std::string& value) const {
    const auto about = fmt::format("{}: {}: ", here().element->title, parameter.name);
    std::string headers, name;
    for (const auto& step : here().path) {
        name += (name.empty() ? "" : ".") + step.key;
        headers += step.index ? fmt::format("[[{}]]\n", name) : fmt::format("[{}]\n", name);
    }
    const auto empty = mistakes_of(headers, name_),
               alone = mistakes_of(fmt::format("{}{} = {}\n", headers, parameter.name, value), name_);
    std::vector<std::string> out;
    for (const auto& mistake : mistakes_of(draft_.text(), name_))
        if (mistake.starts_with(about) && std::ranges::count(alone, mistake) > std::ranges::count(empty, mistake))
            out.push_back(mistake.substr(about.size()));
    return out;
}

std::string Session::done() {
    auto& level = here();
    if (level.before == draft_.text()) return "% nothing has been changed\n";
    if (levels_[levels_.size() - 2].place == Place::element) {  // part of the element above, which is saved as one
        level.before = draft_.text();
        return print_element(*level.element, level.path, 0);
    }
    auto said = write(print_element(*level.element, level.path, 0) + "saved");
    if (draft_.text() == saved_ || !is_complete_) level.before = draft_.text();
    return said;
}

// Writes the draft when all of it is valid. A file that was valid stays so; one that is only being made may have gaps
// until the last `done`.
std::string Session::write(const std::string& thanks) {
    if (const auto mistakes = mistakes_of(draft_.text(), name_); !mistakes.empty()) {
        if (is_complete_) return listed(mistakes) + "% not saved\n";
        return fmt::format("% kept, but not in the file yet, which also needs:\n{}", listed(mistakes));
    }
    if (const auto written = save_(draft_.text()); !written)
        return fmt::format("% not saved: {}\n", written.error().text);
    saved_ = draft_.text();
    is_complete_ = has_written_ = true;
    return fmt::format("{} to {}; gmctl reload applies what can change while phones are registered\n", thanks, name_);
}

// --- what is there
// ------------------------------------------------------------------------------------------

std::string Session::show(std::string_view) const {
    if (here().place != Place::element) return saved_.ends_with('\n') || saved_.empty() ? saved_ : saved_ + "\n";
    return print_element(*here().element, here().is_chosen ? here().path : Path{{"", 0}}, 0);
}

std::string Session::print_element(const Element& element, const Path& path, std::size_t depth) const {
    const std::string indentation(depth * 8, ' ');
    std::string out = fmt::format("{}{}\n", indentation, element.name);
    for (const auto& parameter : element.parameters) {
        const auto value = draft_.value(path, parameter.name);
        const auto text = value ? *value
                          : parameter.fallback.empty()
                              ? ""
                              : fmt::format("{} (default)", without_quotes(parameter.fallback));
        out += fmt::format("{}        {:<32}{}", indentation, parameter.name, text);
        while (out.back() == ' ') out.pop_back();
        out += '\n';
    }
    for (const auto& child : element.children) {
        auto below = path;
        if (!child.is_list) {
            below.push_back({child.name});
            if (draft_.has(below)) out += print_element(child, below, depth + 1);
            continue;
        }
        for (std::size_t i = 0; i < draft_.count(path, child.name); ++i) {
            auto one = path;
            one.push_back({child.name, i});
            out += print_element(child, one, depth + 1);
        }
    }
    return out;
}

std::string Session::explain(const Parameter& parameter) const {
    std::string out =
        fmt::format("{}: {}\n", parameter.name, parameter.help.empty() ? "see gmgate.toml(5)" : parameter.help);
    if (const auto values = values_of(parameter); !values.empty())
        out += fmt::format("  one of: {}\n", fmt::join(values, ", "));
    else if (!parameter.takes.empty()) out += fmt::format("  takes: {}\n", parameter.takes);
    if (!parameter.fallback.empty()) out += fmt::format("  default: {}\n", without_quotes(parameter.fallback));
    if (here().is_chosen)
        if (const auto value = draft_.value(here().path, parameter.name)) out += fmt::format("  now: {}\n", *value);
    return out;
}

// Words that the parser knows, or the names of the elements that the parameter refers to.
std::vector<std::string> Session::values_of(const Parameter& parameter) const {
    if (!parameter.words.empty()) return parameter.words;
    std::vector<std::string> names;
    for (const auto& element : schema_.elements)
        if (element.name == parameter.name && element.is_list)
            for (std::size_t i = 0; i < draft_.count({}, element.name); ++i)
                if (auto name = draft_.value({{element.name, i}}, element.identity()))
                    names.push_back(std::move(*name));
    return names;
}

// --- the file
// ------------------------------------------------------------------------------------------

std::string Session::keep(const std::string& word, const std::vector<std::string>& names) {
    if (word == "save-config")
        return has_unsaved() ? write("saved") : fmt::format("{} is saved: each done does that\n", name_);
    if (word == "activate-config") {
        if (!actions_.activate) return "% no gateway is asked from here: gmctl reload\n";
        const auto said = actions_.activate();
        return said ? *said : fmt::format("% not activated: {}\n", said.error().text);
    }
    const bool is_plain = names.size() == 1 && !names[0].empty() &&
                          names[0].find_first_not_of(
                              "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == std::string::npos;
    if (!is_plain) return fmt::format("% it is: {} NAME, of letters, digits, dots and hyphens\n", word);
    if (word == "restore-config") return restore(names[0]);
    if (!actions_.back_up) return "% this file is kept nowhere\n";
    const auto kept = actions_.back_up(names[0], saved_);
    return kept ? fmt::format("{} is kept as {}\n", name_, names[0]) : fmt::format("% {}\n", kept.error().text);
}

// Only what the gateway would start with comes into its place.
std::string Session::restore(const std::string& name) {
    if (!actions_.backup) return "% this file is kept nowhere\n";
    auto text = actions_.backup(name);
    if (!text) return fmt::format("% {}\n", text.error().text);
    if (const auto mistakes = mistakes_of(*text, name_); !mistakes.empty())
        return listed(mistakes) + fmt::format("% backup \"{}\" is no good configuration any more\n", name);
    auto document = Document::parse(std::move(*text), name_);
    if (!document) return fmt::format("% {}\n", document.error().text);
    auto was = std::exchange(draft_, std::move(*document));
    auto said = write("restored");
    if (draft_.text() != saved_) draft_ = std::move(was);
    return said;
}

std::string Session::verify() const {
    const auto config = parse_config(saved_, name_);
    if (!config) return fmt::format("{}\n", config.error().text);
    const auto problems = check_addresses(*config);
    return problems.empty() ? fmt::format("{}: all well\n", name_) : listed(problems);
}

// --- help
// ------------------------------------------------------------------------------------------

std::vector<std::string> Session::complete(std::string_view line) const {
    if (question_ != Question::none) return {};
    const auto at = line.find_last_of(" \t");
    const auto last = at == std::string_view::npos ? line : line.substr(at + 1);
    const auto words = split_words(at == std::string_view::npos ? std::string_view{} : line.substr(0, at));
    if (!words) return {};
    std::vector<std::string> names;
    for (const auto& command : commands()) names.push_back(command.name);
    if (words->empty()) return beginning_with(names, last);
    const auto known = matching(names, words->front());
    if (known.size() != 1) return {};
    if (known.front() == "configure") return beginning_with({"terminal"}, last);
    if (here().place != Place::element) return {};
    if (known.front() == "no" || known.front() == "help") {
        names.clear();
        for (const auto& parameter : here().element->parameters) names.push_back(parameter.name);
        return beginning_with(names, last);
    }
    const auto* parameter = here().element->parameter(known.front());
    return parameter ? beginning_with(values_of(*parameter), last) : std::vector<std::string>{};
}

std::string Session::help(std::string_view line) const {
    if (question_ != Question::none) return {};
    const auto words = split_words(line);
    if (words && !words->empty() && here().place == Place::element) {
        std::vector<std::string> names;
        for (const auto& parameter : here().element->parameters) names.push_back(parameter.name);
        const auto known = matching(names, words->front());
        if (known.size() == 1 && line.ends_with(' ')) return explain(*here().element->parameter(known.front()));
    }
    std::string out;
    for (const auto& command : commands())
        if (!words || words->empty() || command.name.starts_with(words->front()))
            out += fmt::format("  {:<30}{}\n", command.name, command.help);
    return out;
}

}  // namespace gmgate::daemon::configure
