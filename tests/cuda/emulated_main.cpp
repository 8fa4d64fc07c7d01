// emulated_main [--order forward|backward|random] [--seed N] [--without FILE:LINE] [--shift BYTES] [--hide BYTES]
//               [--workspace-shift BYTES] [CASE...]
// Runs the cases, or those named. A line a case: its name, and the digest of its results or what is wrong; then, with
// --barriers, the barriers that were reached. --sweep: takes away each barrier in turn and says what notices.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <map>

#include "emulate_switch.h"
#include "emulated_cases.h"

namespace {

using emulate::switches;

std::string base_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

void set_barrier(const std::string& place) {
    switches.without_file = place.substr(0, place.find(':'));
    switches.without_line = std::atoi(place.c_str() + place.find(':') + 1);
}

std::string outcome(const EmulatedCase& each) {
    try {
        char text[20];
        std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(each.run()));
        return text;
    } catch (const std::exception& error) {
        return error.what();
    }
}

// Of a case in a process of its own, since what is wrong may end it.
std::string outcome_apart(const EmulatedCase& each) {
    int ends[2];
    if (pipe(ends) != 0) return "no pipe";
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);
        const std::string text = outcome(each);
        _exit(write(ends[1], text.data(), text.size()) != static_cast<ssize_t>(text.size()));
    }
    close(ends[1]);
    std::string text;
    char part[4096];
    for (ssize_t size; (size = read(ends[0], part, sizeof part)) > 0;) text.append(part, static_cast<std::size_t>(size));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) return std::string("ended by ") + strsignal(WTERMSIG(status));
    return text.empty() ? "ended with " + std::to_string(WEXITSTATUS(status)) : text;
}

int sweep(const std::vector<EmulatedCase>& cases) {
    std::map<std::string, std::vector<std::pair<const EmulatedCase*, std::string>>> barriers;
    for (const EmulatedCase& each : cases) {
        emulate::reached.clear();
        const std::string right = outcome(each);
        for (const auto& [file, line] : emulate::reached) {
            barriers[base_name(file) + ":" + std::to_string(line)].emplace_back(&each, right);
        }
    }
    int missed = 0;
    for (const auto& [barrier, reaching] : barriers) {
        set_barrier(barrier);
        std::string noticed;
        for (const auto& [each, right] : reaching) {
            const std::string found = outcome_apart(*each);
            if (found == right) continue;
            noticed = each->name + ": " + (found.size() == 16 ? "another result" : found);
            break;
        }
        missed += noticed.empty();
        std::printf("without %s | %s\n", barrier.c_str(), noticed.empty() ? "NOT NOTICED" : noticed.c_str());
        std::fflush(stdout);
    }
    return missed != 0;
}

}  // namespace

int main(int count, char** arguments) {
    bool all_barriers = false, swept = false;
    std::vector<std::string> names;
    for (int i = 1; i < count; ++i) {
        const std::string option = arguments[i];
        if (option == "--barriers") {
            all_barriers = true;
        } else if (option == "--sweep") {
            swept = true;
        } else if (option.rfind("--", 0) != 0 || i + 1 == count) {
            names.push_back(option);
        } else {
            const std::string value = arguments[++i];
            if (option == "--order") {
                switches.order = value == "random"     ? emulate::Order::random
                                 : value == "backward" ? emulate::Order::backward
                                                       : emulate::Order::forward;
            } else if (option == "--without") {
                set_barrier(value);
            } else if (option == "--seed") {
                switches.seed = static_cast<unsigned>(std::stoul(value));
            } else if (option == "--shift") {
                switches.shift = std::stoul(value);
            } else if (option == "--hide") {
                switches.hide = std::stoul(value);
            } else if (option == "--workspace-shift") {
                switches.workspace_shift = std::stoul(value);
            } else {
                return std::printf("unknown option %s\n", option.c_str()), 2;
            }
        }
    }
    std::vector<EmulatedCase> cases;
    for (const EmulatedCase& each : emulated_cases()) {
        bool wanted = names.empty();
        for (const std::string& name : names) wanted |= each.name == name;
        if (wanted) cases.push_back(each);
    }
    if (swept) return sweep(cases);
    for (const EmulatedCase& each : cases) {
        std::printf("%s | %s\n", each.name.c_str(), outcome(each).c_str());
        std::fflush(stdout);
    }
    if (all_barriers) {
        for (const auto& [file, line] : emulate::reached) std::printf("barrier %s:%d\n", base_name(file).c_str(), line);
    }
    return 0;
}
