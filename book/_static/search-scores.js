// Chapters and claims first, the reference after them. Sphinx reads this file into its search script.
var Scorer = {
  score: ([page, , , , score]) => score + (/^(genindex|py-modindex|book\/api\/)/.test(page) ? -1000 : 0),
  objNameMatch: 11, objPartialMatch: 6, objPrio: { 0: 15, 1: 5, 2: -5 }, objPrioDefault: 0,
  title: 15, partialTitle: 7, term: 5, partialTerm: 2,
};
// A page that was opened from a disk may read no other: results come without their excerpts.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
