/* How search results are ranked: the values of Sphinx, but records of decisions, files and the changelog come last. */
var Scorer = {
  score: ([page, , , , score]) => (/^(adr\/|files\/|changelog$)/.test(page) ? score - 100 : score),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
