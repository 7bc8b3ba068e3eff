// Whether addresses of ours are there: links and addresses of the kernel, watched through libnl-3's route caches.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <asio/any_io_executor.hpp>

#include "base/endpoint.h"
#include "base/error.h"

namespace gmgate::xfrm {

/// An address is usable when a link has it, it is not tentative or a duplicate, and the link is up and has its carrier.
class AddressWatch {
public:
    struct Change {
        Address address;
        bool is_usable = false;
        std::string why;  ///< "no link has it", "link access is down", …
    };
    using Handler = std::function<void(const Change&)>;
    /// `handle` runs on the executor, once for each change; what is not usable at start is told then.
    AddressWatch(asio::any_io_executor executor, std::vector<Address> addresses, Handler handle);
    AddressWatch(const AddressWatch&) = delete;
    AddressWatch& operator=(const AddressWatch&) = delete;
    ~AddressWatch();

    /// Opens the caches in the network namespace of the moment. Reaction::broken when it cannot.
    Result<void> start();

private:
    struct Impl;
    std::shared_ptr<Impl> impl_;  // shared with the handler that waits for the socket
};

}  // namespace gmgate::xfrm
