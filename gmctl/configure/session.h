// The shell of `gmctl configure` without a terminal: a line goes in, what is to be printed comes out. It follows the
// steps of the feature text (SEED-37): configure terminal, session-router, sip-interface, select, parameters, done.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "gmctl/configure/document.h"
#include "gmctl/configure/schema.h"

namespace gmgate::daemon::configure {

/// Puts the finished text in the place of the file, whole or not at all.
using Save = std::function<Result<void>(const std::string& text)>;

/// What else the shell can do with the file; what is empty is refused.
struct Actions {
    std::function<Result<std::string>()> activate{};  ///< has the gateway read it; tells in lines what came of it
    std::function<Result<void>(const std::string& name, const std::string& text)> back_up{};
    std::function<Result<std::string>(const std::string& name)> backup{};  ///< the text that was kept under that name
};

class Session {
public:
    /// `document` is the file as it is; `name` stands for it in messages; `prompt` is the word before # ("gmgate").
    Session(Schema schema, Document document, std::string name, std::string prompt, Save save);

    void set_actions(Actions actions) { actions_ = std::move(actions); }

    /// What to print before the next line is read: "gmgate(sip-interface)# ", or the question that stands open,
    /// "selection: ".
    std::string prompt() const;
    /// Takes one line and gives what is to be printed, with the line ends.
    std::string execute(std::string_view line);
    /// What the last word of an unfinished line can become, sorted as in the help.
    std::vector<std::string> complete(std::string_view line) const;
    /// What can be typed here, one line each (also for an unfinished line: what its next word can be).
    std::string help(std::string_view line = {}) const;
    /// Whether `exit` was typed on the outermost level.
    bool is_over() const { return over_; }
    /// Whether an element was changed and neither saved nor given up.
    bool has_unsaved() const { return draft_.text() != saved_; }
    /// Whether something was written to the file.
    bool has_written() const { return has_written_; }

private:
    enum class Place { top, configure, group, element };
    enum class Question { none, select, remove, save, leave };
    struct Level {
        Place place;
        std::string name;
        const Element* element = nullptr;
        Path path{};             ///< of the element that is edited, or would be made
        bool is_chosen = false;  ///< it is in the draft
        std::string before{};    ///< text of the draft when the level was entered, or at the last `done`
    };
    struct Word {
        std::string name, help;
    };

    Level& here() { return levels_.back(); }
    const Level& here() const { return levels_.back(); }
    std::vector<Word> commands() const;
    std::string answer(std::string_view line);
    std::string enter(const std::string& word);
    std::string enter_element(const Element& element);
    std::string leave();
    std::string give_up();
    std::string select(std::string_view which);
    std::string choose(std::size_t index);
    std::string start_removal(std::string_view what);
    std::string remove(std::size_t index);
    std::string change(const Parameter& parameter, const std::vector<std::string>& values);
    std::vector<std::string> wrong_values(const Parameter& parameter, const std::string& value) const;
    std::string done();
    std::string show(std::string_view what) const;
    std::string listing() const;
    std::string label(const Path& path, const Element& element) const;
    std::string print_element(const Element& element, const Path& path, std::size_t depth) const;
    std::string explain(const Parameter& parameter) const;
    std::vector<std::string> values_of(const Parameter& parameter) const;
    Result<std::size_t> number_of(std::string_view which) const;
    Result<void> make_sure_it_exists();
    std::string verify() const;
    std::string keep(const std::string& word, const std::vector<std::string>& names);
    std::string restore(const std::string& name);
    Result<std::vector<std::string>> edited(const Parameter& parameter, const std::vector<std::string>& values) const;
    std::string write(const std::string& thanks);

    Schema schema_;
    Document draft_;
    std::string saved_;  ///< text that is in the file
    std::string name_, prompt_;
    Save save_;
    Actions actions_{};
    bool is_complete_;  ///< the file was valid: then nothing else is ever written
    bool over_ = false;
    bool has_written_ = false;
    Question question_ = Question::none;
    std::vector<Level> levels_{{Place::top, ""}};
};

}  // namespace gmgate::daemon::configure
