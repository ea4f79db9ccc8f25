use super::*;

type Row = Vec<u64>;

const CONFIG: ChainConfig = ChainConfig { chunk: TokenCount(4), window: 1 };

fn range(start: u32, end: u32) -> BlockRange {
    BlockRange::new(start, end).unwrap()
}

fn chain(cuts: &[u32], config: ChainConfig) -> Chain<Row> {
    let hops: Vec<BlockRange> = cuts.windows(2).map(|pair| range(pair[0], pair[1])).collect();
    Chain::of_tokens(range(cuts[0], cuts[cuts.len() - 1]), &hops, config).unwrap()
}

/// Answers everything with rows of zeros, and notes what was asked: hop, from, rows, output.
fn settle(chain: &mut Chain<Row>) -> Vec<(u64, u32, u32, OutputRows)> {
    let mut asked = Vec::new();
    while let Some(work) = chain.next_work() {
        asked.push((work.hop.0, work.from.0, work.rows.0, work.output));
        answer(chain, &work).unwrap();
    }
    asked
}

fn answer(chain: &mut Chain<Row>, work: &Work<Row>) -> Result<Completed<Row>, ChainError> {
    let rows = work.output.of(work.rows.as_usize());
    chain.complete(work.id, (rows > 0).then(|| vec![0; rows]))
}

#[test]
fn prefill_is_cut_into_chunks_and_only_the_newest_output_comes_back() {
    let mut chain = chain(&[0, 3, 6], CONFIG);
    chain.extend_tokens(TokenCount(6), Outputs::Last).unwrap();
    assert_eq!(
        settle(&mut chain),
        [
            (1, 0, 4, OutputRows::All),
            (1, 4, 2, OutputRows::All),
            (2, 0, 4, OutputRows::None),
            (2, 4, 2, OutputRows::Last),
        ]
    );
    assert!(chain.is_idle());
    assert_eq!(chain.history_rows(), 6, "one inner boundary; token ids cost nothing");
}

#[test]
fn chunks_pipeline_over_hops_and_links() {
    let mut chain = chain(&[0, 3, 6], ChainConfig { window: 2, ..CONFIG });
    chain.extend_tokens(TokenCount(12), Outputs::Last).unwrap();
    let first = chain.next_work().unwrap();
    let second = chain.next_work().unwrap();
    assert_eq!((second.hop, second.from), (HopId(1), TokenCount(4)), "sent before the first is answered");
    assert_eq!(chain.next_work(), None, "the window is full");
    assert_eq!(answer(&mut chain, &second), Err(ChainError::OutOfOrder { hop: HopId(1) }));
    answer(&mut chain, &first).unwrap();
    let (third, other) = (chain.next_work().unwrap(), chain.next_work().unwrap());
    assert_eq!((third.hop, third.from), (HopId(1), TokenCount(8)));
    assert_eq!((other.hop, other.from), (HopId(2), TokenCount(0)), "hop 2 works while hop 1 does");
}

#[test]
fn a_replay_asks_only_for_rows_nobody_holds() {
    let mut chain = chain(&[0, 2, 6, 8], CONFIG);
    chain.extend_tokens(TokenCount(6), Outputs::Last).unwrap();
    settle(&mut chain);
    assert!(chain.fail(HopId(2)) && !chain.fail(HopId(2)));
    let span = chain.lost().remove(0);
    assert_eq!(span, LostSpan { range: range(2, 6), hops: vec![HopId(2)] });
    assert_eq!(chain.input_length(HopId(2)), Some(TokenCount(6)));
    let fresh = chain.replace(&span, &[range(2, 4), range(4, 6)]).unwrap();
    assert_eq!(fresh, [HopId(4), HopId(5)]);
    assert_eq!(
        settle(&mut chain),
        [
            (4, 0, 4, OutputRows::All),
            (4, 4, 2, OutputRows::All),
            (5, 0, 4, OutputRows::None),
            (5, 4, 2, OutputRows::None),
        ],
        "boundary 4 is new; boundary 6 is kept; hops 1 and 3 are left alone"
    );
    assert!(chain.is_idle());
    assert_eq!(chain.history_rows(), 18);
}

#[test]
fn a_dead_last_hop_is_asked_for_the_newest_row_again_only_if_it_never_came() {
    for answered in [true, false] {
        let mut chain = chain(&[0, 2, 4], CONFIG);
        chain.extend_tokens(TokenCount(5), Outputs::Last).unwrap();
        let mut work = chain.next_work();
        while let Some(next) = work {
            if answered || next.output != OutputRows::Last {
                answer(&mut chain, &next).unwrap();
            }
            work = chain.next_work();
        }
        chain.fail(HopId(2));
        let span = chain.lost().remove(0);
        chain.replace(&span, &[range(2, 4)]).unwrap();
        let newest = if answered { OutputRows::None } else { OutputRows::Last };
        assert_eq!(settle(&mut chain), [(3, 0, 4, OutputRows::None), (3, 4, 1, newest)]);
    }
}

#[test]
fn neighbours_are_one_span_and_their_boundary_is_dropped() {
    let mut chain = chain(&[0, 2, 4, 6, 8], CONFIG);
    chain.extend_tokens(TokenCount(3), Outputs::Last).unwrap();
    settle(&mut chain);
    assert_eq!(chain.history_rows(), 9);
    assert!(chain.fail(HopId(2)) && chain.fail(HopId(3)));
    let span = chain.lost().remove(0);
    assert_eq!((span.range, span.hops.len()), (range(2, 6), 2));
    let before = chain.clone().hops().collect::<Vec<_>>();
    assert!(matches!(chain.replace(&span, &[range(2, 5)]), Err(StaleSpan::BadHops(_))));
    assert_eq!(chain.hops().collect::<Vec<_>>(), before);
    chain.replace(&span, &[range(2, 6)]).unwrap();
    assert_eq!(chain.history_rows(), 6);
}

#[test]
fn a_span_whose_neighbour_died_meanwhile_is_still_replaced() {
    let mut chain = chain(&[0, 2, 4, 6], CONFIG);
    chain.fail(HopId(2));
    let span = chain.lost().remove(0);
    chain.fail(HopId(3));
    chain.replace(&span, &[range(2, 4)]).unwrap();
    assert_eq!(chain.lost(), [LostSpan { range: range(4, 6), hops: vec![HopId(3)] }]);
    assert_eq!(chain.replace(&span, &[range(2, 4)]), Err(StaleSpan::NotLost(range(2, 4))));
}

#[test]
fn late_answers_are_fenced_off() {
    let mut chain = chain(&[0, 2], CONFIG);
    chain.extend_tokens(TokenCount(2), Outputs::Last).unwrap();
    let cut = chain.next_work().unwrap();
    chain.truncate(TokenCount(1));
    assert_eq!(answer(&mut chain, &cut), Ok(Completed::Stale), "it held a position that is no more");
    let lost = chain.next_work();
    assert!(lost.is_some(), "the surviving position is fed again");
    chain.fail(HopId(1));
    assert_eq!(answer(&mut chain, &lost.unwrap()), Ok(Completed::Stale));
}

#[test]
fn a_server_that_lost_its_kv_is_fed_again() {
    let mut chain = chain(&[0, 2], CONFIG);
    chain.extend_tokens(TokenCount(3), Outputs::Last).unwrap();
    settle(&mut chain);
    chain.extend_tokens(TokenCount(1), Outputs::Last).unwrap();
    let refused = chain.next_work().unwrap();
    chain.fell_back(refused.id, TokenCount(1));
    assert_eq!(settle(&mut chain), [(1, 1, 3, OutputRows::Last)]);
}

#[test]
fn an_answer_of_the_wrong_size_is_the_hops_fault() {
    let mut chain = chain(&[0, 2], CONFIG);
    chain.extend_tokens(TokenCount(3), Outputs::All).unwrap();
    let work = chain.next_work().unwrap();
    let wrong = chain.complete(work.id, Some(vec![0; 2])).unwrap_err();
    assert_eq!(wrong, ChainError::WrongRows { hop: HopId(1), expected: 3, got: 2 });
    assert_eq!(wrong.culprit(), Some(HopId(1)));
}

#[test]
fn a_chain_of_rows_keeps_its_input() {
    let whole = range(0, 2);
    let mut chain = Chain::of_rows(whole, &[whole], CONFIG).unwrap();
    assert_eq!(chain.extend_tokens(TokenCount(1), Outputs::All), Err(ChainError::WrongInput));
    chain.extend_rows(vec![7, 8], Outputs::All).unwrap();
    let work = chain.next_work().unwrap();
    assert_eq!((work.input, work.output), (Input::Rows(vec![7, 8]), OutputRows::All));
    assert_eq!(chain.history_rows(), 2);
}
