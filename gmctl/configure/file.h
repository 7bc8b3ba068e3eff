// The configuration file on disk: read once, replaced whole.
#pragma once

#include <string>

#include "base/error.h"

namespace gmgate::daemon::configure {

class File {
public:
    /// A file that does not exist reads as an empty text. Error (broken): it cannot be read.
    static Result<File> open(const std::string& path);

    const std::string& path() const { return path_; }
    const std::string& text() const { return text_; }
    /// Writes a new file beside the old one, with the old one's owner and mode (0640 when there was none), flushes it
    /// and renames it into place, so that a reader sees the old text or the new one. Error (refused): somebody else has
    /// changed the file since it was read.
    Result<void> replace(const std::string& text);

private:
    std::string path_;  ///< links resolved: the link stays a link
    std::string text_;  ///< what is in the file, as far as we know
    bool exists_ = false;
};

}  // namespace gmgate::daemon::configure
