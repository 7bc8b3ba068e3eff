// Keeps the store true to the table: every change of a registration becomes a row, once per turn of the loop.
#pragma once

#include <functional>
#include <memory>
#include <set>

#include <asio/any_io_executor.hpp>

#include "daemon/registrations/store.h"
#include "daemon/registrations/table.h"

namespace gmgate::daemon {

class Keeper {
public:
    Keeper(asio::any_io_executor executor, Table& table, Store& store);

    /// The registration as it is now, in the file before this completes, or no row of it when it has ended: to be
    /// awaited before its 200 leaves. A store that cannot write is logged and counted there, and the phone is served
    /// all the same.
    Task<void> save(ContactKey key);
    /// A second place that the registration is to be in before its 200 leaves.
    void also(std::function<Task<void>(ContactKey)> second) { also_ = std::move(second); }
    /// A second place that a challenge is to be in before its 401 leaves; the first one keeps none.
    void also_challenges(std::function<Task<void>(ChallengeKey)> second) { also_challenges_ = std::move(second); }
    Task<void> save_challenge(ChallengeKey key);
    /// Something of it changed or ended; written soon.
    void changed(const ContactKey& key);
    /// Writes what changed() has gathered, for the end of the process.
    void write_now();
    /// Every registration anew, some hundred at a time (the store lost changes).
    Task<void> save_all();

private:
    asio::any_io_executor executor_;
    Table& table_;
    Store& store_;
    std::function<Task<void>(ContactKey)> also_;
    std::function<Task<void>(ChallengeKey)> also_challenges_;
    std::set<ContactKey> changed_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // a posted turn may come after the end
};

}  // namespace gmgate::daemon
