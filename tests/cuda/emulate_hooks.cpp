// What the compiler calls at every access of an instrumented kernel (-fsanitize=thread,alignment), and reports.
#include <dlfcn.h>
#include <link.h>

#include <cstdint>
#include <cstdio>
#include <map>
#include <set>
#include <stdexcept>

#include "emulate_races.h"
#include "emulate_report.h"

namespace emulate {
namespace {

constexpr std::size_t MOST = 12;
std::set<Subject> subjects;
std::string texts;

struct Image {
    std::uintptr_t begin = 0, end = 0;

    Image() {
        Dl_info info;
        dladdr(reinterpret_cast<const void*>(&report), &info);
        begin = reinterpret_cast<std::uintptr_t>(info.dli_fbase);
        dl_iterate_phdr(
            [](dl_phdr_info* each, std::size_t, void* self) {
                auto& image = *static_cast<Image*>(self);
                if (each->dlpi_addr != image.begin) return 0;
                for (int i = 0; i < each->dlpi_phnum; ++i) {
                    const auto& part = each->dlpi_phdr[i];
                    if (part.p_type == PT_LOAD) image.end = each->dlpi_addr + part.p_vaddr + part.p_memsz;
                }
                return 1;
            },
            this);
    }
};

}  // namespace

bool in_program(const void* pointer) {
    static const Image image;
    const auto at = reinterpret_cast<std::uintptr_t>(pointer);
    return at >= image.begin && at < image.end;
}

std::string line_of(const void* from) {
    static std::map<const void*, std::string> known;
    std::string& text = known[from];
    if (!text.empty()) return text;
    Dl_info info;
    dladdr(from, &info);
    const auto offset = static_cast<const char*>(from) - static_cast<const char*>(info.dli_fbase) - 1;
    char command[4096];
    std::snprintf(command, sizeof command, "addr2line -i -s -e '%s' %#tx", info.dli_fname, offset);
    if (FILE* lines = popen(command, "r")) {
        char line[1024];
        while (std::fgets(line, sizeof line, lines) != nullptr) {
            std::string one(line);
            one.erase(one.find_last_not_of(" \n") + 1);
            one = one.substr(0, one.find(" (discriminator"));
            text += (text.empty() ? "" : " < ") + one;
        }
        pclose(lines);
    }
    if (text.empty()) text = "?";
    return text;
}

void report(const Subject& subject, const std::function<std::string()>& text) {
    if (subjects.size() < MOST && subjects.insert(subject).second) {
        texts += "\n" + std::get<0>(subject) + ": " + text();
    }
}

void clear_reports() { subjects.clear(), texts.clear(); }

void throw_reports() {
    if (texts.empty()) return;
    const std::string all = "emulation:" + texts;
    clear_reports();
    throw std::logic_error(all);
}

}  // namespace emulate

using emulate::races::access;

extern "C" {

#define GLSK_HOOKS(bytes)                                                                                        \
    void __tsan_read##bytes(const void* at) { access(at, bytes, false, __builtin_return_address(0)); }           \
    void __tsan_write##bytes(const void* at) { access(at, bytes, true, __builtin_return_address(0)); }           \
    void __tsan_unaligned_read##bytes(const void* at) { access(at, bytes, false, __builtin_return_address(0)); } \
    void __tsan_unaligned_write##bytes(const void* at) { access(at, bytes, true, __builtin_return_address(0)); }
GLSK_HOOKS(1)
GLSK_HOOKS(2)
GLSK_HOOKS(4)
GLSK_HOOKS(8)
GLSK_HOOKS(16)
#undef GLSK_HOOKS

void __tsan_read_range(const void* at, std::size_t bytes) { access(at, bytes, false, __builtin_return_address(0)); }
void __tsan_write_range(const void* at, std::size_t bytes) { access(at, bytes, true, __builtin_return_address(0)); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}

struct Mismatch {  // of -fsanitize=alignment, as its runtime has it
    const char* file;
    unsigned line, column;
    const void* type;
    unsigned char log_alignment, kind;
};

void __ubsan_handle_type_mismatch_v1(const Mismatch* data, const void* at) {
    emulate::races::misaligned(data->file, static_cast<int>(data->line), at, std::size_t(1) << data->log_alignment);
}

}
