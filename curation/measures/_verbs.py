"""English verbs that instructions to a model begin with, and words that end the noun phrase after them."""

from __future__ import annotations

# A hyphen is a space or a hyphen in the text. Verbs that set a scene and ask for nothing (imagine, suppose, let, note,
# consider, assume) are left out on purpose.
VERBS = (
    "abbreviate", "abridge", "accept", "adapt", "add", "adjust", "advise", "advocate", "alter", "analyse", "analyze",
    "annotate", "answer", "append", "apply", "appraise", "approximate", "argue", "arrange", "articulate", "assemble",
    "assess", "assign", "attach", "audit", "automate", "balance", "book", "brainstorm", "break", "build", "calculate",
    "cancel", "capitalize", "caption", "categorise", "categorize", "change", "characterize", "chart", "check",
    "choose", "cite", "clarify", "classify", "clean", "code", "combine", "come-up-with", "comment", "compare",
    "compile", "complete", "compose", "compress", "compute", "concatenate", "conceive", "conclude", "condense",
    "conduct", "configure", "connect", "construct", "continue", "contrast", "convert", "convince", "copy", "correct",
    "count", "craft", "create", "criticize", "critique", "debate", "debug", "decide", "decipher", "decode",
    "decompose", "decrypt", "deduce", "define", "delete", "deliver", "demonstrate", "depict", "derive", "describe",
    "design", "detail", "detect", "determine", "develop", "devise", "diagnose", "diagram", "differentiate", "discuss",
    "display", "distinguish", "distribute", "divide", "document", "draft", "draw", "edit", "elaborate", "eliminate",
    "emulate", "encode", "encrypt", "enhance", "enumerate", "estimate", "evaluate", "examine", "execute", "expand",
    "explain", "explore", "express", "extend", "extract", "factor", "fetch", "figure-out", "fill", "fill-in", "filter",
    "find", "finish", "fix", "forecast", "form", "format", "formulate", "gather", "generate", "give", "graph", "group",
    "guess", "guide", "highlight", "hypothesize", "identify", "illustrate", "implement", "improve", "improvise",
    "include", "incorporate", "increase", "index", "infer", "inform", "insert", "inspect", "install", "integrate",
    "interpret", "introduce", "invent", "investigate", "join", "judge", "justify", "know", "label", "list", "locate",
    "look-up", "make", "map", "match", "measure", "mention", "merge", "minimize", "modify", "name", "narrate",
    "normalize", "optimise", "optimize", "order", "organise", "organize", "outline", "output", "paraphrase", "parse",
    "perform", "persuade", "pick", "plan", "play", "plot", "point-out", "predict", "prepare", "present", "print",
    "prioritise", "prioritize", "process", "produce", "proofread", "propose", "prove", "provide", "punctuate", "quote",
    "rank", "rate", "re-arrange", "re-order", "re-phrase", "re-word", "re-write", "read", "rearrange", "rebut",
    "recall", "recite", "recognise", "recognize", "recommend", "recount", "redesign", "reduce", "refactor", "refine",
    "reformat", "reformulate", "refute", "relate", "remind", "remove", "rename", "render", "reorder", "reorganize",
    "repair", "repeat", "rephrase", "replace", "reply", "report", "represent", "research", "resolve", "respond",
    "restate", "restructure", "retell", "retrieve", "return", "reverse", "review", "revise", "reword", "rewrite",
    "rhyme", "roleplay", "round", "run", "say", "schedule", "scrape", "search", "seek", "select", "send", "separate",
    "set", "share", "shorten", "show", "simplify", "simulate", "sketch", "solve", "sort", "specify", "speculate",
    "spell", "split", "standardize", "state", "strengthen", "structure", "substitute", "subtract", "suggest",
    "sum", "sum-up", "summarise", "summarize", "supply", "support", "switch", "synthesize", "tag", "take", "tell",
    "test", "trace", "track", "train", "transcribe", "transform", "translate", "transpose", "troubleshoot", "turn",
    "uncover", "unscramble", "update", "use", "validate", "verify", "visualize", "weigh", "write",
)  # fmt: skip

# A verb followed by one of these is a noun that opens a statement ("Research shows", "Names of").
NO_COMMANDS = (
    "is", "are", "was", "were", "has", "had", "of", "shows", "says", "can", "will", "would", "may", "must",
)  # fmt: skip

# Verbs that are field names before a colon ("Name: Ada").
FIELD_NAMES = (
    "answer", "book", "caption", "code", "comment", "document", "draft", "form", "format", "label", "list", "mention",
    "name", "order", "outline", "output", "plan", "point", "process", "report", "research", "review", "schedule",
    "sketch", "state", "tag", "test", "track", "transcribe", "update",
)  # fmt: skip

# Words that end a noun phrase: its head is the word before them.
PHRASE_ENDS = (
    "a", "about", "above", "across", "after", "against", "all", "along", "among", "an", "and", "any", "are", "around",
    "as", "associated", "at", "available", "based", "because", "been", "before", "below", "between", "both", "but",
    "by", "called", "can", "concerning", "consisting", "containing", "could", "demonstrating", "depicting",
    "describing", "detailing", "discussing", "do", "does", "during", "either", "explaining", "featuring", "for",
    "from", "given", "had", "has", "have", "he", "how", "i", "if", "in", "include", "including", "inside", "into",
    "involving", "is", "it", "its", "like", "made", "may", "might", "must", "named", "needed", "of", "on", "once",
    "one's", "or", "out", "over", "per", "regarding", "related", "relating", "she", "should", "showing", "since", "so",
    "some", "such", "suitable", "summarizing", "than", "that", "the", "their", "them", "then", "there", "these",
    "they", "this", "those", "through", "throughout", "to", "toward", "towards", "under", "until", "up", "upon",
    "used", "using", "via", "was", "we", "were", "what", "when", "where", "whether", "which", "while", "who", "whom",
    "whose", "why", "will", "with", "within", "without", "would", "you", "your",
)  # fmt: skip
